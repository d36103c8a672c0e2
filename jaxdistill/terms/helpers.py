"""Small trained modules that stand between a student and a teacher.

They exist while a method trains, and are dropped for evaluation and export.
Vectors `[B, C]` count as maps `[B, 1, 1, C]`.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.losses import numerics
from jaxdistill.networks import layers
from jaxdistill.types import Array


def as_map(x: Array) -> Array:
  """`[B, C]` as `[B, 1, 1, C]`; maps as they are."""
  return x[:, None, None] if x.ndim == 2 else x


def nearest(x: Array, height: int, width: int) -> Array:
  """Resizes by nearest neighbour as PyTorch does, which takes the upper left.

  Args:
    x: `[B, H, W, C]`.
    height: of the result.
    width: of the result.
  """
  rows = np.arange(height) * x.shape[1] // height
  columns = np.arange(width) * x.shape[2] // width
  return x[:, rows][:, :, columns]


class HintRegressor(nn.Module):
  """Maps a student's feature to the shape of a teacher's: conv, norm, ReLU.

  A 3x3 convolution of stride 2 where the student's map is twice as large, a
  4x4 transposed one where it is half as large, else an unpadded one whose
  kernel is what is to be cut off. A map that is smaller by another factor is
  enlarged first, where RepDistiller raises an error.

  Attributes:
    shape: (H, W, C) of the teacher's feature.
    activation: whether the ReLU is there.
  """

  shape: tuple[int, int, int]
  activation: bool = True

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    height, width, channels = self.shape
    x = as_map(x)
    ours = x.shape[1:3]
    if ours == (2 * height, 2 * width):
      x = layers.conv(channels, 3, 2, use_bias=True, name='conv')(x)
    elif (2 * ours[0], 2 * ours[1]) == (height, width):
      x = nn.ConvTranspose(channels, (4, 4), (2, 2), name='conv')(x)
    else:
      if ours[0] < height or ours[1] < width:
        x = nearest(x, height, width)
      kernel = (1 + x.shape[1] - height, 1 + x.shape[2] - width)
      x = nn.Conv(channels, kernel, padding='VALID', name='conv')(x)
    x = layers.batch_norm(train, name='norm')(x)
    return nn.relu(x) if self.activation else x


class Connector(nn.Module):
  """1x1 convolution without bias and batch norm to `channels`.

  Attributes:
    channels: of the output.
    activation: whether a ReLU follows.
    shape: (H, W) of the output, by nearest neighbour; None: as it comes.
  """

  channels: int
  activation: bool = False
  shape: tuple[int, int] | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = as_map(x)
    if self.shape is not None and x.shape[1:3] != self.shape:
      x = nearest(x, *self.shape)
    x = layers.conv(self.channels, 1, name='conv')(x)
    x = layers.batch_norm(train, name='norm')(x)
    return nn.relu(x) if self.activation else x


class Regressor(nn.Module):
  """ReLU, and a 1x1 convolution without bias to `channels`."""

  channels: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    return layers.conv(self.channels, 1, name='conv')(nn.relu(as_map(x)))


class Adapter(nn.Module):
  """Brings a map to another size, bilinearly, and other channels, linearly.

  What becomes smaller is antialiased. Where the channels differ, a 1x1
  convolution with bias, zero at first: the errors of a random one push ReLUs
  before it to zero, where they stay.

  Attributes:
    shape: (H, W, C) of the output.
  """

  shape: tuple[int, int, int]

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = as_map(x)
    if x.shape[1:3] != self.shape[:2]:
      size = (len(x), *self.shape[:2], x.shape[-1])
      x = jax.image.resize(x, size, 'bilinear')
    if x.shape[-1] != self.shape[-1]:
      zeros = nn.initializers.zeros
      x = nn.Conv(self.shape[-1], (1, 1), kernel_init=zeros, name='conv')(x)
    return x


class NoiseMask(nn.Module):
  """Adds noise to a teacher's feature where a mask lets it through.

    teacher + (1 - mask) * noise

  Equation (4) of Masked Layer Distillation. No gradient flows to the noise.

  Attributes:
    shape: of the feature of one image, and of the mask.
    value: of the whole mask at first; 1: no noise.
  """

  shape: tuple[int, ...]
  value: float = 0.5

  @nn.compact
  def __call__(self, teacher: Array, noise: Array, train: bool) -> Array:
    del train
    mask = self.param('mask', nn.initializers.constant(self.value), self.shape)
    noise = jax.lax.stop_gradient(noise)
    return (teacher + (1 - mask)[None] * noise).astype(teacher.dtype)


class Embedding(nn.Module):
  """Linear map of the flattened feature to `[B, size]`."""

  size: int = 128

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = x.reshape(len(x), -1).astype(jnp.float32)
    initializer = layers.torch_uniform(x.shape[-1])
    return nn.Dense(
      self.size,
      kernel_init=initializer,
      bias_init=initializer,
      name='linear',
    )(x)


class VariationalHead(nn.Module):
  """Mean and raw variance of a teacher's feature, given a student's.

  The mean is made by three 1x1 convolutions; '.raw_variance' is `[C]`, at
  first such that the variance is `variance`.

  Attributes:
    shape: (H, W, C) of the teacher's feature; a larger map of the student is
      pooled to it first.
    variance: at first.
  """

  shape: tuple[int, int, int]
  variance: float = 5.0

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    del train
    height, width, channels = self.shape
    x = as_map(x)
    x = numerics.adaptive_average_pool(
      x, min(height, x.shape[1]), min(width, x.shape[2])
    )
    for i in range(3):
      x = nn.Conv(
        channels,
        (1, 1),
        use_bias=False,
        kernel_init=layers.torch_uniform(x.shape[-1]),
        name=f'conv{i + 1}',
      )(x)
      x = nn.relu(x) if i < 2 else x
    raw = np.log(np.expm1(self.variance - 1e-5))
    raw_variance = self.param(
      'raw_variance', nn.initializers.constant(raw), (channels,)
    )
    return {'': x, '.raw_variance': raw_variance}


class Factor(nn.Module):
  """Three 3x3 convolutions that shrink a map to `factor` channels.

  Attributes:
    factor: channels of the output.
    decode: the channels of a mirrored decoder, whose output is
      '.reconstruction'; 0: none.
  """

  factor: int
  decode: int = 0

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    def unit(x: Array, channels: int, name: str) -> Array:
      x = layers.conv(channels, use_bias=True, name=f'{name}_conv')(x)
      x = layers.batch_norm(train, name=f'{name}_norm')(x)
      return nn.leaky_relu(x, 0.1)

    x = as_map(x)
    x = unit(x, x.shape[-1], 'encoder1')
    x = unit(x, self.factor, 'encoder2')
    encoded = unit(x, self.factor, 'encoder3')
    if not self.decode:
      return {'': encoded}
    x = unit(encoded, self.factor, 'decoder1')
    x = unit(x, self.decode, 'decoder2')
    return {'': encoded, '.reconstruction': unit(x, self.decode, 'decoder3')}


class AttentionFusion(nn.Module):
  """Fuses a student's feature with what the deeper levels gave (ABF).

  The output has the shape of the teacher's feature; '.residual' goes to the
  next, shallower level.

  Attributes:
    shape: (H, W, C) of the teacher's feature.
    inner: channels of the fused map.
  """

  shape: tuple[int, int, int]
  inner: int

  @nn.compact
  def __call__(
    self, x: Array, deeper: Array | None = None, *, train: bool
  ) -> dict[str, Array]:
    height, width, channels = self.shape
    x = layers.conv(self.inner, 1, name='conv1')(as_map(x))
    x = layers.batch_norm(train, name='norm1')(x)
    if deeper is not None:
      deeper = nearest(deeper, *x.shape[1:3])
      # Small initial weights: the gates begin open, halfway.
      uniform = layers.torch_uniform(2 * self.inner)
      weights = nn.Conv(
        2, (1, 1), kernel_init=uniform, bias_init=uniform, name='attention'
      )(jnp.concatenate([x, deeper], -1))
      weights = nn.sigmoid(weights)
      x = x * weights[..., :1] + deeper * weights[..., 1:]
    if x.shape[1:3] != (height, width):
      x = nearest(x, height, width)
    output = layers.conv(channels, 3, name='conv2')(x)
    output = layers.batch_norm(train, name='norm2')(output)
    return {'': output, '.residual': x}
