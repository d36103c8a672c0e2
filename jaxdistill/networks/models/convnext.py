"""ConvNeXt.

Liu et al., A ConvNet for the 2020s, 2022, https://arxiv.org/abs/2201.03545.
"""

from collections.abc import Sequence
import functools

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.layers import attention, stochastic_depth
from jaxdistill.networks.models import arguments

_EPSILON = 1e-6


def _strided(width: int, kernel: int, dtype: str) -> nn.Conv:
  """Returns a convolution whose windows do not overlap."""
  return nn.Conv(
    width,
    (kernel, kernel),
    strides=kernel,
    padding='VALID',
    kernel_init=attention.NORMAL,
    dtype=dtype,
    name='conv',
  )


@description.register
class ConvNextStem(nn.Module):
  """Convolution of patches and layer norm.

  Attributes:
    width: channels of the output.
    patch: height and width of a patch.
    dtype: the type of the computation.
  """

  width: int
  patch: int = 4
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    if min(x.shape[1:3]) < self.patch:
      raise UsageError(
        f'expected images of at least {self.patch} x {self.patch} pixels, the '
        f'size of one patch, got {x.shape[1]} x {x.shape[2]}'
      )
    x = _strided(self.width, self.patch, self.dtype)(x)
    return attention.layer_norm(_EPSILON, self.dtype, 'norm')(x)


@description.register
class ConvNextTransition(nn.Module):
  """Layer norm and a 2x2 convolution of stride 2.

  Attributes:
    width: channels of the output.
    dtype: the type of the computation.
  """

  width: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = attention.layer_norm(_EPSILON, self.dtype, 'norm')(x)
    return _strided(self.width, 2, self.dtype)(x)


@description.register
class ConvNextBlock(nn.Module):
  """7x7 depthwise convolution, layer norm and two dense layers, added.

  Attributes:
    inner: channels between the dense layers; 0: four times those of the input.
    drop_path: the probability that the branch is dropped in training.
    layer_scale: the initial factor of each channel of the branch.
    dtype: the type of the computation.
  """

  inner: int = 0
  drop_path: float = 0.0
  layer_scale: float = 1e-6
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    channels = x.shape[-1]
    y = layers.conv(
      channels,
      7,
      groups=channels,
      use_bias=True,
      dtype=self.dtype,
      name='depthwise_conv',
    )(x)
    y = attention.layer_norm(_EPSILON, self.dtype, 'norm')(y)
    dense = functools.partial(
      nn.Dense, kernel_init=attention.NORMAL, dtype=self.dtype
    )
    y = dense(self.inner or 4 * channels, name='dense1')(y)
    y = dense(channels, name='dense2')(attention.ACTIVATIONS['gelu'](y))
    initial = nn.initializers.constant(self.layer_scale)
    scale = self.param('scale', initial, (channels,)).astype(y.dtype)
    y = y * scale[None, None, None]
    if train and self.drop_path and self.has_rng('dropout'):
      y = stochastic_depth.drop_path(
        y, self.drop_path, self.make_rng('dropout')
      )
    return x + y


@description.register
class PoolNorm(nn.Module):
  """Global average and layer norm, `[B, H, W, C]` -> `[B, C]`.

  Attributes:
    epsilon: the epsilon of the layer norm.
    dtype: the type of the computation.
  """

  epsilon: float = _EPSILON
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = jnp.mean(x, (1, 2))
    return attention.layer_norm(self.epsilon, self.dtype, 'norm')(x)


def convnext(
  blocks: Sequence[int] = (3, 3, 9, 3),
  widths: Sequence[int] = (96, 192, 384, 768),
  *,
  num_classes: int = 1000,
  patch: int = 4,
  inner_widths: Sequence[int] | None = None,
  drop_path: float = 0.0,
  layer_scale: float = 1e-6,
  last_epsilon: float = _EPSILON,
  head: bool = True,
  dtype: str = 'float32',
) -> Network:
  """Returns a ConvNeXt; by default, ConvNeXt-T.

  Args:
    blocks: the number of blocks of each group.
    widths: the channels of each group.
    num_classes: the number of classes.
    patch: height and width of the patches of the stem; 1 or 2 suit images of
      32x32.
    inner_widths: channels between the two dense layers of each block; None:
      four times the channels of its group.
    drop_path: block i of n drops its branch with probability
      drop_path * i / (n - 1), i = 0, 1, ...
    layer_scale: the initial factor of each channel of a branch.
    last_epsilon: the epsilon of the layer norm in 'pool'; that of the others is
      1e-6.
    head: whether there is a classifier; without it, the network ends with
      'pool', and `num_classes` is not used.
    dtype: the type of the computation; parameters stay in float32.

  Returns:
    A network with the stages 'stem', 'group{g}.block{b}', 'transition{g}',
    'pool' and 'head', where groups and blocks are counted from 1. 'pool' is
    the normalised average of the last map.
  """
  arguments.probability('drop_path', drop_path)
  blocks = tuple(checks.integer('blocks', count) for count in blocks)
  widths = arguments.per_group('widths', widths, len(blocks))
  inner = arguments.per_block('inner_widths', inner_widths, sum(blocks))
  patch = checks.integer('patch', patch)
  stages = [Stage('stem', ConvNextStem(widths[0], patch, dtype))]
  i = 0
  for g, (count, width) in enumerate(zip(blocks, widths), 1):
    if g > 1:
      transition = ConvNextTransition(width, dtype)
      stages.append(Stage(f'transition{g - 1}', transition))
    for b in range(count):
      rate = drop_path * i / max(sum(blocks) - 1, 1)
      block = ConvNextBlock(inner[i] or 0, rate, layer_scale, dtype)
      stages.append(Stage(f'group{g}.block{b + 1}', block))
      i += 1
  stages.append(Stage('pool', PoolNorm(last_epsilon, dtype)))
  if head:
    stages.append(Stage('head', layers.Classifier(num_classes, std=0.02)))
  return Network(tuple(stages))
