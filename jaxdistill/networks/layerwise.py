"""Residual blocks taken apart into layers, and made narrower inside."""

import math
from typing import Any

from flax import linen as nn

from jaxdistill.networks import imagenet_resnet, layers, resnet, staged
from jaxdistill.types import Array, Model, Network, Stage, UsageError

# The blocks that `narrowed` knows.
NARROWED = (
  imagenet_resnet.Bottleneck,
  resnet.BasicBlock,
  resnet.PreactivationBlock,
)


class ConvSum(nn.Module):
  """Convolution and batch norm, added to a shortcut, and ReLU.

  Attributes:
    width: channels of the output.
    kernel: size of the convolution's kernel.
    dtype: of the computation.
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


class Subsample(nn.Module):
  """The shortcut without parameters; see `resnet.BasicBlock`.

  Attributes:
    width: channels of the output.
    stride: in both directions.
    kind: of the shortcut, 'A' or 'pool'.
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
  """The same model with one stage for each convolution of its residual blocks.

  A block 'group1.block1' becomes the stages 'group1.block1.shortcut', where
  it has one, '.conv1', '.conv2' and so on; the output of the last is the
  block's. Basic blocks and bottlenecks are taken apart, other stages stay.

  Args:
    model: the network and its variables, or their shapes.
  """
  stages: list[Stage] = []
  moved: dict[str, dict[str, Any]] = {c: {} for c in model.variables}
  ends: dict[str, str] = {}
  before = 'image'
  for stage in model.network.stages:
    own = {
      c: t[stage.name] for c, t in model.variables.items() if stage.name in t
    }
    inputs = tuple(ends.get(name, name) for name in stage.inputs)
    for piece, suffix in _pieces(stage._replace(inputs=inputs), before, own):
      stages.append(piece)
      for collection, tree in own.items():
        part = _renamed(tree, suffix)
        if part:
          moved[collection][piece.name] = part
    before = ends[stage.name] = stages[-1].name
  return Model(Network(tuple(stages)), moved)


def narrowed(
  network: Network, *, multiplier: float, inner_after: bool = True
) -> Network:
  """The network with fewer channels inside its residual blocks.

  What each block reads and puts out stays as it is: the student of
  Neighbourhood Distillation, whose inner widths are floor(multiplier * width).

  Args:
    network: of basic, pre-activation or bottleneck blocks.
    multiplier: in (0, 1].
    inner_after: whether a bottleneck's second inner width shrinks too; the
      paper's '-3' against its '-2'.

  Raises:
    UsageError: the multiplier is none, or leaves a block no channel, or there
      is no residual block.
  """
  if not 0 < multiplier <= 1:
    raise UsageError(f'multiplier: {multiplier} is not in (0, 1]')

  def shrunk(name: str, width: int) -> int:
    found = math.floor(multiplier * width + 1e-9)
    if found < 1:
      raise UsageError(
        f'multiplier: {multiplier} leaves {name!r} none of its {width} channels'
      )
    return found

  stages = []
  for stage in network.stages:
    module, widths = stage.module, {}
    if isinstance(module, imagenet_resnet.Bottleneck):
      inner = module.inner or module.width // 4
      after = module.inner_after or inner
      widths['inner'] = shrunk(stage.name, inner)
      widths['inner_after'] = (
        shrunk(stage.name, after) if inner_after else after
      )
    elif isinstance(module, (resnet.BasicBlock, resnet.PreactivationBlock)):
      widths['inner'] = shrunk(stage.name, module.inner or module.width)
    if multiplier < 1 and widths:
      stage = stage._replace(module=module.clone(**widths))
    stages.append(stage)
  if not any(isinstance(stage.module, NARROWED) for stage in stages):
    raise UsageError(
      'multiplier: the network has no basic, bottleneck or pre-activation '
      'block of a ResNet; its stages are '
      f'{", ".join(staged.stage_names(network))}'
    )
  return Network(tuple(stages))


def _pieces(
  stage: Stage, before: str, variables: dict[str, Any]
) -> list[tuple[Stage, str | None]]:
  """The stages of a block, each with the ending of its layers' names there.

  'conv1' and 'norm1' have the ending '1', those of the shortcut 'shortcut_';
  a stage that stays whole has None.
  """
  block, name = stage.module, stage.name
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
  made: list[tuple[Stage, str | None]] = []
  shortcut = source
  # It stands first, so that what is narrowed inside follows each other.
  if stride != 1 or variables['params']['conv1']['kernel'].shape[2] != width:
    shortcut = f'{name}.shortcut'
    unit: nn.Module = (
      Subsample(width, stride, kind)
      if kind in resnet.WITHOUT_PARAMETERS
      else layers.ConvUnit(width, 1, stride, activation='', dtype=dtype)
    )
    made.append((Stage(shortcut, unit, (source,)), 'shortcut_'))
  for i, (channels, kernel, step) in enumerate(units[:-1], 1):
    unit = layers.ConvUnit(channels, kernel, step, dtype=dtype)
    inputs: tuple[str, ...] = (source,) if i == 1 else ()
    made.append((Stage(f'{name}.conv{i}', unit, inputs), str(i)))
  last = len(units)
  end = ConvSum(width, units[-1][1], dtype)
  inputs = (f'{name}.conv{last - 1}', shortcut)
  return [*made, (Stage(f'{name}.conv{last}', end, inputs), str(last))]


def _renamed(tree: dict[str, Any], ending: str | None) -> dict[str, Any]:
  """The variables of one layer of a block under the names of a unit."""
  if ending is None:
    return tree
  names = (
    {f'{ending}{kind}': kind for kind in ('conv', 'norm')}
    if ending == 'shortcut_'
    else {f'{kind}{ending}': kind for kind in ('conv', 'norm')}
  )
  return {new: tree[old] for old, new in names.items() if old in tree}
