"""Adapters: small trained modules between a student and a teacher.

They exist only while a method trains; the student is evaluated and exported
without them. All of them turn what they read into a map; see `maps.as_map`.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.types import Array
from jaxdistill.losses import numerics
from jaxdistill.networks import description, layers
from jaxdistill.objectives import maps


def nearest(x: Array, height: int, width: int) -> Array:
  """Resizes a map by nearest neighbour; positions round down as in PyTorch.

  Args:
    x: `[B, H, W, C]`.
    height: the height of the result.
    width: the width of the result.

  Returns:
    `[B, height, width, C]`.
  """
  rows = np.arange(height) * x.shape[1] // height
  columns = np.arange(width) * x.shape[2] // width
  return x[:, rows][:, :, columns]


@description.register
class HintRegressor(nn.Module):
  """Maps a student's feature to a teacher's shape: convolution, norm, ReLU.

  If the student's map is twice as large, the convolution is a 3x3 one of stride
  2; if it is half as large, a 4x4 transposed one. Otherwise, it is a
  convolution without padding whose kernel is as large as needed to reach the
  teacher's size. A map that is smaller by another factor is enlarged before;
  RepDistiller raises an error in this case.

  Attributes:
    shape: (H, W, C) of the teacher's feature.
    activation: whether a ReLU follows.
  """

  shape: tuple[int, int, int]
  activation: bool = True

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    height, width, channels = self.shape
    x = maps.as_map(x)
    size = x.shape[1:3]
    if size == (2 * height, 2 * width):
      x = layers.conv(channels, 3, 2, use_bias=True, name='conv')(x)
    elif (2 * size[0], 2 * size[1]) == (height, width):
      x = nn.ConvTranspose(channels, (4, 4), (2, 2), name='conv')(x)
    else:
      if size[0] < height or size[1] < width:
        x = nearest(x, height, width)
      kernel = (1 + x.shape[1] - height, 1 + x.shape[2] - width)
      x = nn.Conv(channels, kernel, padding='VALID', name='conv')(x)
    x = layers.batch_norm(train, name='norm')(x)
    return nn.relu(x) if self.activation else x


@description.register
class Connector(nn.Module):
  """A 1x1 convolution without bias, followed by batch norm.

  Attributes:
    channels: the number of output channels.
    activation: whether a ReLU follows.
    shape: (H, W) to which the input is resized by nearest neighbour; None keeps
      its size.
  """

  channels: int
  activation: bool = False
  shape: tuple[int, int] | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    x = maps.as_map(x)
    if self.shape is not None and x.shape[1:3] != self.shape:
      x = nearest(x, *self.shape)
    x = layers.conv(self.channels, 1, name='conv')(x)
    x = layers.batch_norm(train, name='norm')(x)
    return nn.relu(x) if self.activation else x


@description.register
class Regressor(nn.Module):
  """A ReLU, followed by a 1x1 convolution without bias.

  Attributes:
    channels: the number of output channels.
  """

  channels: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    return layers.conv(self.channels, 1, name='conv')(nn.relu(maps.as_map(x)))


@description.register
class Adapter(nn.Module):
  """Resizes a map bilinearly and maps its channels linearly.

  A map that becomes smaller is antialiased. If the numbers of channels differ,
  a 1x1 convolution with bias follows, whose initial weights are zero. With
  random initial weights, the errors would push the ReLUs before it to zero,
  from where they do not recover.

  Attributes:
    shape: (H, W, C) of the output.
  """

  shape: tuple[int, int, int]

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = maps.as_map(x)
    if x.shape[1:3] != self.shape[:2]:
      size = (len(x), *self.shape[:2], x.shape[-1])
      x = jax.image.resize(x, size, 'bilinear')
    if x.shape[-1] != self.shape[-1]:
      zeros = nn.initializers.zeros
      x = nn.Conv(self.shape[-1], (1, 1), kernel_init=zeros, name='conv')(x)
    return x


@description.register
class Embedding(nn.Module):
  """A linear map of the flattened feature to `[B, size]`.

  Attributes:
    size: the size of the embedding.
  """

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


@description.register
class Positions(nn.Module):
  """Resizes a map bilinearly and maps each position linearly.

  A map that becomes smaller is antialiased.

  Attributes:
    shape: (H, W, C) of the output.
  """

  shape: tuple[int, int, int]

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    del train
    x = maps.as_map(x).astype(jnp.float32)
    if x.shape[1:3] != self.shape[:2]:
      size = (len(x), *self.shape[:2], x.shape[-1])
      x = jax.image.resize(x, size, 'bilinear')
    initializer = layers.torch_uniform(x.shape[-1])
    return nn.Conv(
      self.shape[-1],
      (1, 1),
      kernel_init=initializer,
      bias_init=initializer,
      name='conv',
    )(x)


@description.register
class VariationalHead(nn.Module):
  """Predicts mean and raw variance of a teacher's feature, given a student's.

  Three 1x1 convolutions compute the mean, the output. The output
  '.raw_variance' is a parameter `[C]`.

  Attributes:
    shape: (H, W, C) of the teacher's feature. A larger map of the student is
      pooled to this size first.
    variance: the initial variance.
  """

  shape: tuple[int, int, int]
  variance: float = 5.0

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    del train
    height, width, channels = self.shape
    x = maps.as_map(x)
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


@description.register
class Factor(nn.Module):
  """Three 3x3 convolutions that reduce a map to `factor` channels.

  Attributes:
    factor: the number of output channels.
    decode: the number of channels of a mirrored decoder, whose output is
      '.reconstruction'; 0 means that there is no decoder.
  """

  factor: int
  decode: int = 0

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    def unit(x: Array, channels: int, name: str) -> Array:
      x = layers.conv(channels, use_bias=True, name=f'{name}_conv')(x)
      x = layers.batch_norm(train, name=f'{name}_norm')(x)
      return nn.leaky_relu(x, 0.1)

    x = maps.as_map(x)
    x = unit(x, x.shape[-1], 'encoder1')
    x = unit(x, self.factor, 'encoder2')
    encoded = unit(x, self.factor, 'encoder3')
    if not self.decode:
      return {'': encoded}
    x = unit(encoded, self.factor, 'decoder1')
    x = unit(x, self.decode, 'decoder2')
    return {'': encoded, '.reconstruction': unit(x, self.decode, 'decoder3')}


@description.register
class AttentionFusion(nn.Module):
  """Fuses a student's feature with the result of the deeper levels (ABF).

  The output has the shape of the teacher's feature. The output '.residual' is
  passed on to the next, shallower level.

  Attributes:
    shape: (H, W, C) of the teacher's feature.
    inner: the number of channels of the fused map.
  """

  shape: tuple[int, int, int]
  inner: int

  @nn.compact
  def __call__(
    self, x: Array, deeper: Array | None = None, *, train: bool
  ) -> dict[str, Array]:
    height, width, channels = self.shape
    x = layers.conv(self.inner, 1, name='conv1')(maps.as_map(x))
    x = layers.batch_norm(train, name='norm1')(x)
    if deeper is not None:
      deeper = nearest(deeper, *x.shape[1:3])
      # With small initial weights, the gates are half open in the beginning.
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
