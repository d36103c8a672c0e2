"""A residual block with a choice of depth, kernel, rank and non-linearity."""

from flax import linen as nn

from jaxdistill.core.types import Array
from jaxdistill.networks import description
from jaxdistill.networks.layers import basic


@description.register
class ResidualUnit(nn.Module):
  """Convolutions with batch norm and activations in between, plus a shortcut.

  The activation also follows the sum. If the shape changes, the shortcut is a
  1x1 convolution with batch norm.

  Attributes:
    width: channels of the output.
    inner: channels between the convolutions; 0: `width`.
    depth: the number of convolutions.
    kernel: the size of their kernels, an odd number.
    rank: if it is not 0, each convolution is one to so many channels, followed
      by a 1x1 convolution: a kernel of low rank.
    activation: a key of `ACTIVATIONS`.
    final: the activation after the sum, likewise.
    stride: the stride of the first convolution.
    dtype: the type of the computation.
  """

  width: int
  inner: int = 0
  depth: int = 2
  kernel: int = 3
  rank: int = 0
  activation: str = 'relu'
  final: str = 'relu'
  stride: int = 1
  dtype: str = 'float32'

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    return {'inner': self.inner or self.width} if self.depth > 1 else {}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    activate = basic.ACTIVATIONS[self.activation]
    y = x
    for i in range(1, self.depth + 1):
      y = activate(y) if i > 1 else y
      is_last = i == self.depth
      width = self.width if is_last else self.inner or self.width
      y = self._conv(y, width, self.stride if i == 1 else 1, f'conv{i}')
      y = basic.batch_norm(train, dtype=self.dtype, name=f'norm{i}')(y)
    if self.stride != 1 or x.shape[-1] != self.width:
      x = basic.conv(
        self.width, 1, self.stride, dtype=self.dtype, name='shortcut_conv'
      )(x)
      x = basic.batch_norm(train, dtype=self.dtype, name='shortcut_norm')(x)
    y = x + y
    return {'': basic.ACTIVATIONS[self.final](y), '.pre': y}

  def _conv(self, x: Array, width: int, stride: int, name: str) -> Array:
    first = self.rank or width
    x = basic.conv(first, self.kernel, stride, dtype=self.dtype, name=name)(x)
    if not self.rank:
      return x
    return basic.conv(width, 1, dtype=self.dtype, name=f'{name}_expand')(x)
