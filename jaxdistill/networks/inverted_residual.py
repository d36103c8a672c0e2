"""The inverted residual block of MobileNetV2, V3 and EfficientNet."""

import functools

from flax import linen as nn

from jaxdistill.networks import layers, stochastic
from jaxdistill.types import Array, UsageError


class InvertedResidual(nn.Module):
  """1x1 expansion, depthwise convolution, [squeeze,] 1x1 projection.

  The input is added where the shape stays. There is no activation at the end.

  Attributes:
    width: channels of the output.
    inner: channels of the depthwise convolution.
    stride: of the depthwise convolution.
    kernel: of the depthwise convolution.
    expand: whether the 1x1 expansion is there; without it `inner` must be the
      channels of the input.
    squeeze: hidden channels of squeeze-and-excitation; 0: none.
    activation: after the first two convolutions.
    squeeze_activation: inside squeeze-and-excitation.
    gate: of squeeze-and-excitation.
    drop_path: probability that the branch is dropped in training.
    epsilon: of the batch norms.
    momentum: of the batch norms' running statistics.
    dtype: of the computation.

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

  CHANNELS = (
    layers.Channels(
      'inner',
      'depthwise_norm',
      ('project_conv', 'squeeze_conv'),
      'expand_conv',
      ('expand_norm', 'depthwise_conv', 'excite_conv'),
    ),
  )

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
    if train and self.drop_path:
      y = stochastic.drop_path(y, self.drop_path, self.make_rng('dropout'))
    return x + y

  def _excitation(self, x: Array) -> Array:
    """A factor in (0, 1) for each channel, `[B, 1, 1, C]`."""

    def conv(features, name):
      return layers.conv(
        features, 1, use_bias=True, dtype=self.dtype, name=name
      )

    y = conv(self.squeeze, 'squeeze_conv')(x.mean((1, 2), keepdims=True))
    y = layers.ACTIVATIONS[self.squeeze_activation](y)
    y = conv(x.shape[-1], 'excite_conv')(y)
    return layers.ACTIVATIONS[self.gate](y)


def check(block: InvertedResidual, channels: int) -> None:
  """Raises UsageError where a block cannot follow so many channels."""
  if not block.expand and block.inner != channels:
    raise UsageError(
      'inner_widths: the first block expands nothing; it cannot have '
      f'{block.inner} channels after the {channels} of the stem'
    )


def round_to_8(width: float) -> int:
  """The nearest multiple of 8 that is not over a tenth below `width`."""
  rounded = max(8, int(width + 4) // 8 * 8)
  return rounded if rounded >= 0.9 * width else rounded + 8
