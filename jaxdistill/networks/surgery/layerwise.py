"""Splits residual blocks into one stage for each convolution."""

from typing import Any

from flax import linen as nn

from jaxdistill.core.types import Array, Model, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.models import imagenet_resnet, resnet


@description.register
class ConvSum(nn.Module):
  """Convolution and batch norm, the sum with a shortcut, and ReLU.

  Attributes:
    width: channels of the output.
    kernel: the size of the convolution's kernel.
    dtype: the type of the computation.
  """

  width: int
  kernel: int = 3
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self, x: Array, shortcut: Array, train: bool
  ) -> dict[str, Array]:
    y = layers.conv(self.width, self.kernel, dtype=self.dtype, name='conv')(x)
    y = layers.batch_norm(train, dtype=self.dtype, name='norm')(y)
    y = shortcut + y
    return {'': nn.relu(y), '.pre': y}


@description.register
class Subsample(nn.Module):
  """A shortcut without parameters; see `resnet.BasicBlock`.

  Attributes:
    width: channels of the output.
    stride: the stride in both directions.
    kind: the kind of shortcut, 'A' or 'pool'.
  """

  width: int
  stride: int
  kind: str = 'A'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    shortcut = resnet.WITHOUT_PARAMETERS[self.kind]
    return shortcut(x, self.width, self.stride)


def by_layers(model: Model) -> Model:
  """Returns an equal model with one stage for each convolution of a block.

  A block 'group1.block1' becomes the stages 'group1.block1.shortcut' (if it has
  one), 'group1.block1.conv1', 'group1.block1.conv2' and so on. The output of
  the last is that of the block. Basic blocks and bottlenecks without
  dilation and frozen norms are split; other stages stay whole.

  Args:
    model: the network and its variables, or their shapes.
  """
  stages: list[Stage] = []
  variables: dict[str, dict[str, Any]] = {c: {} for c in model.variables}
  ends: dict[str, str] = {}
  before = 'image'
  for stage in model.network.stages:
    stage_variables = {
      c: t[stage.name] for c, t in model.variables.items() if stage.name in t
    }
    inputs = tuple(ends.get(name, name) for name in stage.inputs)
    for piece, affix in _pieces(
      stage._replace(inputs=inputs), before, stage_variables
    ):
      stages.append(piece)
      for collection, tree in stage_variables.items():
        part = _renamed(tree, affix)
        if part:
          variables[collection][piece.name] = part
    before = ends[stage.name] = stages[-1].name
  outputs = tuple(ends.get(name, name) for name in model.network.outputs)
  return Model(Network(tuple(stages), outputs), variables)


def _pieces(
  stage: Stage, before: str, variables: dict[str, Any]
) -> list[tuple[Stage, str | None]]:
  """Returns the stages of a block, each with the affix of its layers' names.

  The layers 'conv1' and 'norm1' of the block have the affix '1', those of the
  shortcut have 'shortcut_'. A stage that stays whole has None.
  """
  block, name = stage.module, stage.name
  if getattr(block, 'dilation', 1) > 1 or getattr(block, 'frozen', False):
    return [(stage, None)]
  if isinstance(block, resnet.BasicBlock):
    units = [(block.inner or block.width, 3, block.stride), (block.width, 3, 1)]
    kind = block.shortcut
  elif isinstance(block, imagenet_resnet.Bottleneck):
    inner = block.inner or block.width // 4
    after = block.inner_after or inner
    units = [(inner, 1, 1), (after, 3, block.stride), (block.width, 1, 1)]
    kind = 'B'
  else:
    return [(stage, None)]
  dtype, width, stride = block.dtype, block.width, block.stride
  source = stage.inputs[0] if stage.inputs else before
  pieces: list[tuple[Stage, str | None]] = []
  shortcut = source
  # The shortcut comes first, so that the convolutions which pruning makes
  # narrower follow each other.
  if stride != 1 or variables['params']['conv1']['kernel'].shape[2] != width:
    shortcut = f'{name}.shortcut'
    unit: nn.Module = (
      Subsample(width, stride, kind)
      if kind in resnet.WITHOUT_PARAMETERS
      else layers.ConvUnit(width, 1, stride, activation='', dtype=dtype)
    )
    pieces.append((Stage(shortcut, unit, (source,)), 'shortcut_'))
  for i, (channels, kernel, step) in enumerate(units[:-1], 1):
    unit = layers.ConvUnit(channels, kernel, step, dtype=dtype)
    inputs: tuple[str, ...] = (source,) if i == 1 else ()
    pieces.append((Stage(f'{name}.conv{i}', unit, inputs), str(i)))
  last = len(units)
  end = ConvSum(width, units[-1][1], dtype)
  inputs = (f'{name}.conv{last - 1}', shortcut)
  return [*pieces, (Stage(f'{name}.conv{last}', end, inputs), str(last))]


def _renamed(tree: dict[str, Any], affix: str | None) -> dict[str, Any]:
  """Returns the variables of one layer of a block under the names of a unit."""
  if affix is None:
    return tree
  names = (
    {f'{affix}{kind}': kind for kind in ('conv', 'norm')}
    if affix == 'shortcut_'
    else {f'{kind}{affix}': kind for kind in ('conv', 'norm')}
  )
  return {new: tree[old] for old, new in names.items() if old in tree}
