"""Networks with a depth for each pixel: an encoder and a decoder."""

from flax import linen as nn
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Network, Stage
from jaxdistill.networks import description, layers
from jaxdistill.networks.surgery import dense_heads


@description.register
class Squeeze(nn.Module):
  """A 1x1 convolution with batch norm that halves the channels."""

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    width = max(1, x.shape[-1] // 2)
    x = layers.conv(width, 1, dtype=x.dtype, name='conv')(x)
    return layers.batch_norm(train, dtype=x.dtype, name='norm')(x)


@description.register
class UpProjection(nn.Module):
  """Doubles the size of a map and halves its channels.

  Zeros are put between the places of the map. One branch has a 5x5 and a 3x3
  convolution, the other a 5x5 convolution, each with batch norm. A ReLU follows
  their sum.
  """

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    width, dtype, x = max(1, x.shape[-1] // 2), x.dtype, _unpooled(x)

    def conv_norm(x: Array, kernel: int, name: str) -> Array:
      y = layers.conv(width, kernel, dtype=dtype, name=f'{name}_conv')(x)
      return layers.batch_norm(train, dtype=dtype, name=f'{name}_norm')(y)

    y = conv_norm(nn.relu(conv_norm(x, 5, 'first')), 3, 'second')
    y = y + conv_norm(x, 5, 'shortcut')
    return {'': nn.relu(y), '.pre': y}


@description.register
class UpConvolution(nn.Module):
  """Doubles the size of a map and halves its channels, with one convolution.

  Zeros are put between the places of the map. A 5x5 convolution with batch norm
  and a ReLU follow.
  """

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    width, dtype = max(1, x.shape[-1] // 2), x.dtype
    y = layers.conv(width, 5, dtype=dtype, name='conv')(_unpooled(x))
    y = layers.batch_norm(train, dtype=dtype, name='norm')(y)
    return {'': nn.relu(y), '.pre': y}


def _unpooled(x: Array) -> Array:
  """Puts a zero after each place of maps, in both directions."""
  # Not `jax.lax.pad`, because jax2onnx cannot convert padding between places.
  batch, height, width, channels = x.shape
  x = jnp.concatenate([x, jnp.zeros_like(x)], -1)
  x = x.reshape(batch, height, 2 * width * channels)
  x = jnp.concatenate([x, jnp.zeros_like(x)], -1)
  return x.reshape(batch, 2 * height, 2 * width, channels)


def upproj(
  network: Network,
  *,
  num_classes: int = 1,
  doublings: int = 4,
  prior: float | None = None,
) -> Network:
  """Returns a network for depths: a classifier's maps and an up-projection.

  The last map of the classifier passes a 1x1 convolution with batch norm that
  halves its channels. Each doubling then doubles its size and halves its
  channels again. The map `[B, h, w, num_classes]` has half the resolution of
  the image if the classifier has an ordinary stem and stride 32.

  Args:
    network: a classifier that pools its last map. Everything from the pooling
      on is dropped.
    num_classes: channels of the output; 1 for a map of depths.
    doublings: how often the size is doubled.
    prior: the depth that a new network predicts at all pixels, such as the mean
      depth of the training images; None: random depths around 0, from which
      large depths are learned slowly.

  Returns:
    A network with the stages 'decoder.squeeze', 'decoder.up1' and so on, and
    'head' after the groups of `network`.

  Raises:
    UsageError: the network does not pool its last map, or a number is out of
      its range.

  References:
    - Laina et al., Deeper Depth Prediction with Fully Convolutional Residual
      Networks, 2016, https://arxiv.org/abs/1606.00373
    - Ma and Karaman, Sparse-to-Dense: Depth Prediction from Sparse Depth
      Samples and a Single Image, 2018, https://arxiv.org/abs/1709.07492
  """
  return _decoder(network, UpProjection(), num_classes, doublings, prior)


def upconv(
  network: Network,
  *,
  num_classes: int = 1,
  doublings: int = 4,
  prior: float | None = None,
) -> Network:
  """Returns a network for depths with one convolution for each doubling.

  It is `upproj` with `UpConvolution` in place of `UpProjection`, and needs
  about half of its computation.

  Args:
    network: see `upproj`.
    num_classes: see `upproj`.
    doublings: see `upproj`.
    prior: see `upproj`.

  Raises:
    UsageError: see `upproj`.

  References:
    see `upproj`
  """
  return _decoder(network, UpConvolution(), num_classes, doublings, prior)


def _decoder(
  network: Network,
  block: nn.Module,
  num_classes: int,
  doublings: int,
  prior: float | None,
) -> Network:
  """Returns a classifier's maps with a decoder of several equal blocks."""
  checks.integer('num_classes', num_classes)
  checks.integer('doublings', doublings)
  if prior is not None:
    prior = float(checks.number('prior', prior))
  ups = (Stage(f'decoder.up{i}', block) for i in range(1, doublings + 1))
  head = Stage('head', dense_heads.PixelClassifier(num_classes, prior=prior))
  return dense_heads.with_heads(
    network, [Stage('decoder.squeeze', Squeeze()), *ups, head]
  )
