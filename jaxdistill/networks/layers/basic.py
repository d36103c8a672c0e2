"""Layers that several architectures share, with PyTorch's conventions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import cpu
from jaxdistill.core.types import Array
from jaxdistill.networks import description
from jaxdistill.networks.layers import convolutions, norms, plain, same

# How the kernels of convolutions are initialised: Kaiming normal, not
# truncated, over the fan out or in; uniform in +-1/sqrt(fan in), PyTorch's
# default, or with the variance 1/(fan in); or from N(0, 0.01**2).
KERNELS = {
  'fan_out': nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
  'fan_in': nn.initializers.variance_scaling(2.0, 'fan_in', 'normal'),
  'uniform': nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'),
  'lecun': nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform'),
  'small': nn.initializers.normal(0.01),
}


def torch_uniform(fan_in: float) -> nn.initializers.Initializer:
  """Returns PyTorch's default initialiser, uniform in +-1/sqrt(fan_in)."""

  def initializer(key, shape, dtype=jnp.float32):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return initializer


ACTIVATIONS = {
  '': lambda x: x,
  'relu': nn.relu,
  'relu6': nn.relu6,
  'swish': nn.swish,
  'hard_swish': nn.hard_swish,
  'sigmoid': nn.sigmoid,
  'hard_sigmoid': nn.hard_sigmoid,
}


class Channels(NamedTuple):
  """Channels inside a block that can be removed with no effect outside of it.

  A class of blocks lists its channels as `CHANNELS`, which pruning reads.

  Attributes:
    field: the field of the block that holds their number, or the indices of the
      input channels that are read ('selected').
    norm: the last batch norm that they pass, if the block has it; what comes
      after it must keep a channel of zeros at zero.
    readers: the convolutions that read them, of which the block need not have
      all; empty: those of the next stage.
    writer: the convolution that computes them; empty: they are channels of the
      input.
    passed: the layers besides the norm that have one filter or number for each
      of them, of which the block need not have all.
  """

  field: str
  norm: str
  readers: tuple[str, ...]
  writer: str = ''
  passed: tuple[str, ...] = ()


def select(x: Array, selected: Sequence[int]) -> Array:
  """Returns the selected channels of `[B, H, W, C]` in order; empty: all."""
  return x[..., np.array(selected)] if selected else x


def conv(
  features: int,
  kernel: int = 3,
  stride: int = 1,
  *,
  groups: int = 1,
  use_bias: bool = False,
  initial: str = 'fan_out',
  initial_bias: float = 0.0,
  dilation: int = 1,
  same_padding: bool = False,
  dtype: Any = jnp.float32,
  name: str | None = None,
) -> nn.Module:
  """Returns a convolution with a square kernel that keeps the size of maps.

  Args:
    features: the channels of the output.
    kernel: the height and width of the kernel, an odd number.
    stride: the stride in both directions.
    groups: the number of groups of channels.
    use_bias: whether a bias is added.
    initial: how the kernel is initialised, a key of `KERNELS`.
    initial_bias: the initial value of the bias.
    dilation: the distance of the places that the kernel reads.
    same_padding: whether it is padded as in TensorFlow instead.
    dtype: the type of the computation.
    name: the name of the layer in the module that calls it.
  """
  kind = same.SameConv if same_padding else convolutions.Conv
  return kind(
    features,
    kernel,
    stride,
    groups,
    use_bias,
    kernel_init=KERNELS[initial],
    dtype=jnp.dtype(dtype),
    dilation=dilation,
    initial_bias=initial_bias,
    name=name,
  )


def batch_norm(
  train: bool,
  *,
  epsilon: float = 1e-5,
  momentum: float = 0.9,
  scale: float = 1.0,
  dtype: Any = jnp.float32,
  name: str | None = None,
) -> nn.Module:
  """Returns batch normalisation over all axes but the last.

  Args:
    train: whether it normalises with the statistics of the batch.
    epsilon: what is added to the variance.
    momentum: the momentum of the running statistics.
    scale: the initial scale.
    dtype: the type of the computation.
    name: the name of the layer in the module that calls it.
  """
  kind = norms.ScaleShift if cpu.is_fast() else nn.BatchNorm
  return kind(
    use_running_average=not train,
    epsilon=epsilon,
    momentum=momentum,
    scale_init=nn.initializers.constant(scale),
    dtype=dtype,
    name=name,
  )


def pool_and_pad(x: Array, width: int, stride: int) -> Array:
  """Averages patches and appends channels of zeros: a parameter-free shortcut.

  Args:
    x: `[B, H, W, C]`.
    width: the channels of the output, at least C.
    stride: the side of the patches. At the last row and column of a map whose
      size `stride` does not divide, only existing values are averaged.
  """
  if stride != 1:
    padding = [(0, -x.shape[axis] % stride) for axis in (1, 2)]
    window = (stride, stride)
    x = nn.avg_pool(x, window, window, padding, count_include_pad=False)
  return append_zeros(x, width)


def append_zeros(x: Array, width: int) -> Array:
  """Appends channels of zeros, `[B, H, W, C]` -> `[B, H, W, width]`."""
  missing = width - x.shape[-1]
  if plain.is_active():  # converters cannot pad batches of any size
    zeros = jnp.zeros((*x.shape[:-1], missing), x.dtype)
    return jnp.concatenate([x, zeros], -1)
  return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))


@description.register
class Classifier(nn.Module):
  """Linear map `[B, C]` -> logits `[B, num_classes]`, in float32.

  Attributes:
    num_classes: the number of classes.
    dropout: the rate of the dropout before it.
    std: the standard deviation of the normal initial weights; 0: they are
      uniform.
    bound: the bound of uniform initial weights; 0: 1/sqrt(C).
    zero_bias: whether the bias starts at zero, as it always does with normal
      weights; otherwise it is uniform in +-1/sqrt(C).
  """

  num_classes: int
  dropout: float = 0.0
  std: float = 0.0
  bound: float = 0.0
  zero_bias: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return linear(
      x.astype(jnp.float32),
      self.num_classes,
      self.std,
      self.bound,
      self.zero_bias,
    )


@description.register
class Hidden(nn.Module):
  """Linear map `[B, C]` -> `[B, width]`, then an activation; see
  `Classifier`."""

  width: int
  activation: str = 'relu'
  dropout: float = 0.0
  std: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    x = linear(x.astype(self.dtype), self.width, self.std)
    return {'': ACTIVATIONS[self.activation](x), '.pre': x}


def linear(
  x: Array,
  features: int,
  std: float = 0.0,
  bound: float = 0.0,
  zero_bias: bool = False,
) -> Array:
  """Applies the layer 'linear' of the calling module; see `Classifier`."""
  uniform = torch_uniform(x.shape[-1])
  kernel = torch_uniform(bound**-2) if bound else uniform
  return nn.Dense(
    features,
    kernel_init=nn.initializers.normal(std) if std else kernel,
    bias_init=nn.initializers.zeros if std or zero_bias else uniform,
    dtype=x.dtype,
    name='linear',
  )(x)


@description.register
class Pool(nn.Module):
  """Global average `[B, H, W, C]` -> `[B, C]`."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    return x.mean((1, 2))


@description.register
class NormPool(nn.Module):
  """Batch norm, ReLU and global average `[B, H, W, C]` -> `[B, C]`.

  Attributes:
    pre: full name of the feature after the norm, before the ReLU.
    scale: the initial scale of the norm.
    dtype: the type of the computation.
    selected: the indices of the input channels that are read; empty: all.
  """

  pre: str
  scale: float = 1.0
  dtype: str = 'float32'
  selected: tuple[int, ...] = ()

  CHANNELS = (Channels('selected', 'norm', ()),)

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    norm = batch_norm(train, scale=self.scale, dtype=self.dtype, name='norm')
    x = norm(select(x, self.selected))
    return {'': nn.relu(x).mean((1, 2)), self.pre: x}


@description.register
class ConvUnit(nn.Module):
  """Convolution [, batch norm] [, activation] [, pooling].

  Attributes:
    width: channels of the output.
    kernel: the size of the convolution's kernel.
    stride: the stride of the convolution.
    norm: whether a batch norm follows.
    activation: a key of `ACTIVATIONS`.
    pool: whether the unit ends with a 3x3 max-pooling of stride 2.
    epsilon: the epsilon of the batch norm.
    momentum: the momentum of the batch norm's running statistics.
    initial: how the kernel is initialised, a key of `KERNELS`.
    dtype: the type of the computation.
    same_padding: whether the convolution is padded as in TensorFlow.
    frozen: whether the norm uses its running statistics in training too.
  """

  width: int
  kernel: int = 3
  stride: int = 1
  norm: bool = True
  activation: str = 'relu'
  pool: bool = False
  epsilon: float = 1e-5
  momentum: float = 0.9
  initial: str = 'fan_out'
  dtype: str = 'float32'
  same_padding: bool = False
  frozen: bool = False

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    x = conv(
      self.width,
      self.kernel,
      self.stride,
      initial=self.initial,
      same_padding=self.same_padding,
      dtype=self.dtype,
      name='conv',
    )(x)
    if self.norm:
      x = batch_norm(
        train and not self.frozen,
        epsilon=self.epsilon,
        momentum=self.momentum,
        dtype=self.dtype,
        name='norm',
      )(x)
    y = ACTIVATIONS[self.activation](x)
    if self.pool:
      y = nn.max_pool(y, (3, 3), (2, 2), ((1, 1), (1, 1)))
    return {'': y, '.pre': x} if self.activation else {'': y}
