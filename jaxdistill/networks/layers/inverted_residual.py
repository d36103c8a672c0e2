"""The inverted residual block of MobileNetV2, V3 and EfficientNet."""

import functools

from flax import linen as nn

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array
from jaxdistill.networks import description, layers
from jaxdistill.networks.layers import stochastic_depth


@description.register
class InvertedResidual(nn.Module):
  """1x1 expansion, depthwise convolution, [squeeze,] 1x1 projection.

  The input is added if it has the shape of the output. There is no activation
  at the end.

  Attributes:
    width: channels of the output.
    inner: the channels of the depthwise convolution.
    stride: the stride of the depthwise convolution.
    kernel: the kernel size of the depthwise convolution.
    expand: whether there is the 1x1 expansion; without it, `inner` must be the
      channels of the input.
    squeeze: the hidden channels of squeeze-and-excitation; 0: there is none.
    activation: the activation after the first two convolutions.
    squeeze_activation: the activation inside squeeze-and-excitation.
    gate: the activation at the end of squeeze-and-excitation.
    drop_path: the probability that the branch is dropped in training.
    epsilon: the epsilon of the batch norms.
    momentum: the momentum of the batch norms' running statistics.
    dtype: the type of the computation.
    same_padding: whether the depthwise convolution is padded as in TensorFlow.
    dilation: the dilation of the depthwise convolution.

  References:
    Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks,
    2018, https://arxiv.org/abs/1801.04381; Hu et al., Squeeze-and-Excitation
    Networks, 2017, https://arxiv.org/abs/1709.01507
  """

  width: int
  inner: int
  stride: int = 1
  kernel: int = 3
  expand: bool = True
  squeeze: int = 0
  activation: str = 'relu6'
  squeeze_activation: str = 'relu'
  gate: str = 'hard_sigmoid'
  drop_path: float = 0.0
  epsilon: float = 1e-5
  momentum: float = 0.9
  dtype: str = 'float32'
  same_padding: bool = False
  dilation: int = 1

  CHANNELS = (
    layers.Channels(
      'inner',
      'depthwise_norm',
      ('project_conv', 'squeeze_conv'),
      'expand_conv',
      ('expand_norm', 'depthwise_conv', 'excite_conv'),
    ),
  )

  def inner_widths(self) -> dict[str, int]:
    """Returns the fields that `narrowing.narrowed` reduces."""
    return {'inner': self.inner} if self.expand else {}

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    norm = functools.partial(
      layers.batch_norm,
      train,
      epsilon=self.epsilon,
      momentum=self.momentum,
      dtype=self.dtype,
    )
    activate = layers.ACTIVATIONS[self.activation]
    y = x
    if self.expand:
      y = layers.conv(self.inner, 1, dtype=self.dtype, name='expand_conv')(y)
      y = activate(norm(name='expand_norm')(y))
    y = layers.conv(
      self.inner,
      self.kernel,
      self.stride,
      groups=self.inner,
      same_padding=self.same_padding,
      dilation=self.dilation,
      dtype=self.dtype,
      name='depthwise_conv',
    )(y)
    y = activate(norm(name='depthwise_norm')(y))
    if self.squeeze:
      y = y * self._excitation(y)
    y = layers.conv(self.width, 1, dtype=self.dtype, name='project_conv')(y)
    y = norm(name='project_norm')(y)
    if self.stride != 1 or x.shape[-1] != self.width:
      return y
    if train and self.drop_path and self.has_rng('dropout'):
      y = stochastic_depth.drop_path(
        y, self.drop_path, self.make_rng('dropout')
      )
    return x + y

  def _excitation(self, x: Array) -> Array:
    """Returns a factor in [0, 1] for each channel, `[B, 1, 1, C]`."""

    def conv(features, name):
      return layers.conv(
        features, 1, use_bias=True, dtype=self.dtype, name=name
      )

    y = conv(self.squeeze, 'squeeze_conv')(x.mean((1, 2), keepdims=True))
    y = layers.ACTIVATIONS[self.squeeze_activation](y)
    y = conv(x.shape[-1], 'excite_conv')(y)
    return layers.ACTIVATIONS[self.gate](y)


def check(block: InvertedResidual, channels: int) -> None:
  """Raises a UsageError if a block cannot read so many channels."""
  if not block.expand and block.inner != channels:
    raise UsageError(
      'inner_widths: the first block has no expansion; expected the '
      f'{channels} channels of its input, got {block.inner}'
    )


def round_to_8(width: float) -> int:
  """Returns the nearest multiple of 8 that is at least 0.9 times `width`."""
  rounded = max(8, int(width + 4) // 8 * 8)
  return rounded if rounded >= 0.9 * width else rounded + 8
