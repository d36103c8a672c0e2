"""PyTorch modules of architectures for which the library has no naming.

They are written from the papers for make_fixtures.py, at any width; no test
imports them. Stages and layers have the library's names, so that tensors have
the names of the library's variables. A module `sum` marks the value before the
last ReLU of a block.
"""

from rep_distiller import conv, conv_norm, pooled
import torch
from torch import nn
from torch.nn import functional


class Stages(nn.Module):
  """Runs its children in order; a dot in a stage's name nests modules."""

  def __init__(self, stages):
    super().__init__()
    for name, stage in stages.items():
      group, _, block = name.partition('.')
      if not block:
        self.add_module(name, stage)
        continue
      if not hasattr(self, group):
        self.add_module(group, nn.Sequential())
      getattr(self, group).add_module(block, stage)

  def forward(self, x):
    for stage in self.children():
      x = stage(x)
    return x


class ConvUnit(nn.Module):
  """Convolution [, norm] [, ReLU]."""

  def __init__(self, inputs, width, stride=1, norm=True, activate=True):
    super().__init__()
    self.conv = conv(inputs, width, 3, stride)
    self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
    self.activate = activate

  def forward(self, x):
    x = self.norm(self.conv(x))
    return functional.relu(x) if self.activate else x


class NormPool(nn.Module):
  """The end of networks that normalise before they convolve."""

  def __init__(self, width):
    super().__init__()
    self.norm = nn.BatchNorm2d(width)

  def forward(self, x):
    return pooled(functional.relu(self.norm(x)))


class Pool(nn.Module):
  def forward(self, x):
    return pooled(x)


class Head(nn.Module):
  def __init__(self, width, classes):
    super().__init__()
    self.linear = nn.Linear(width, classes)

  def forward(self, x):
    return self.linear(x)


class SeparableBlock(nn.Module):
  """MobileNetV1: depthwise and 1x1 convolution, norm and ReLU after each."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.depthwise_conv, self.depthwise_norm = conv_norm(
      inputs, inputs, 3, stride, inputs
    )
    self.pointwise_conv, self.pointwise_norm = conv_norm(inputs, width, 1)

  def forward(self, x):
    x = functional.relu(self.depthwise_norm(self.depthwise_conv(x)))
    return functional.relu(self.pointwise_norm(self.pointwise_conv(x)))


def mobilenet_v1(factor, classes):
  width = int(32 * factor)
  stages = {'stem': ConvUnit(3, width, 2)}
  for g, (channels, count) in enumerate(
    ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2)), 1
  ):
    for b in range(1, count + 1):
      stride = 2 if g > 1 and b == 1 else 1
      inputs, width = width, int(channels * factor)
      stages[f'group{g}.block{b}'] = SeparableBlock(inputs, width, stride)
  return Stages({**stages, 'pool': Pool(), 'head': Head(width, classes)})


class PreactivationBottleneck(nn.Module):
  """Norm and ReLU before each convolution; the stride is in the 3x3 one.

  The projection reads the raw input.
  """

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.norm1 = nn.BatchNorm2d(inputs)
    self.conv1, self.norm2 = conv_norm(inputs, width, 1)
    self.conv2, self.norm3 = conv_norm(width, width, 3, stride)
    self.conv3 = conv(width, 4 * width, 1)
    self.shortcut_conv = None
    if stride != 1 or inputs != 4 * width:
      self.shortcut_conv = conv(inputs, 4 * width, 1, stride)

  def forward(self, x):
    y = self.conv1(functional.relu(self.norm1(x)))
    y = self.conv2(functional.relu(self.norm2(y)))
    y = self.conv3(functional.relu(self.norm3(y)))
    return y + (x if self.shortcut_conv is None else self.shortcut_conv(x))


def preactivation_resnet(depth, stem, widths, classes):
  stages, inputs = {'stem': ConvUnit(3, stem, 1, False, False)}, stem
  for g, width in enumerate(widths, 1):
    for b in range(1, (depth - 2) // 9 + 1):
      stride = 2 if g > 1 and b == 1 else 1
      block = PreactivationBottleneck(inputs, width, stride)
      stages[f'group{g}.block{b}'], inputs = block, 4 * width
  return Stages(
    {**stages, 'pool': NormPool(inputs), 'head': Head(inputs, classes)}
  )


class PyramidBlock(nn.Module):
  """No ReLU after the first norm nor after the sum; pads with zeros."""

  def __init__(self, inputs, width, stride, bottleneck):
    super().__init__()
    self.norm1 = nn.BatchNorm2d(inputs)
    if bottleneck:
      self.conv1, self.norm2 = conv_norm(inputs, width, 1)
      self.conv2, self.norm3 = conv_norm(width, width, 3, stride)
      self.conv3, self.norm4 = conv_norm(width, 4 * width, 1)
    else:
      self.conv1, self.norm2 = conv_norm(inputs, width, 3, stride)
      self.conv2, self.norm3 = conv_norm(width, width, 3)
    self.bottleneck, self.stride = bottleneck, stride

  def forward(self, x):
    y = functional.relu(self.norm2(self.conv1(self.norm1(x))))
    y = self.norm3(self.conv2(y))
    if self.bottleneck:
      y = self.norm4(self.conv3(functional.relu(y)))
    if self.stride != 1:
      x = functional.avg_pool2d(x, 2, 2, ceil_mode=True)
    zeros = x.new_zeros(*y.shape[:1], y.shape[1] - x.shape[1], *y.shape[2:])
    return y + torch.cat([x, zeros], 1)


def pyramidnet(depth, widening, stem, bottleneck, classes):
  blocks = (depth - 2) // (9 if bottleneck else 6)
  stages, inputs = {'stem': ConvUnit(3, stem, 1, True, False)}, stem
  width = float(stem)
  for g in range(1, 4):
    for b in range(1, blocks + 1):
      width += widening / (3 * blocks)
      stride = 2 if g > 1 and b == 1 else 1
      block = PyramidBlock(inputs, round(width), stride, bottleneck)
      stages[f'group{g}.block{b}'] = block
      inputs = round(width) * (4 if bottleneck else 1)
  return Stages(
    {**stages, 'pool': NormPool(inputs), 'head': Head(inputs, classes)}
  )


class DenseLayer(nn.Module):
  """Norm, ReLU and 3x3 convolution; the input comes first."""

  def __init__(self, inputs, growth):
    super().__init__()
    self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, growth, 3)

  def forward(self, x):
    return torch.cat([x, self.conv1(functional.relu(self.norm1(x)))], 1)


class Transition(nn.Module):
  """Norm, ReLU, 1x1 convolution that keeps the channels, 2x2 averages."""

  def __init__(self, width):
    super().__init__()
    self.norm, self.conv = nn.BatchNorm2d(width), conv(width, width, 1)

  def forward(self, x):
    return functional.avg_pool2d(self.conv(functional.relu(self.norm(x))), 2)


def densenet(depth, growth, classes):
  width = 2 * growth
  stages = {'stem': ConvUnit(3, width, 1, False, False)}
  for g in range(1, 4):
    for b in range(1, (depth - 4) // 3 + 1):
      stages[f'group{g}.block{b}'] = DenseLayer(width, growth)
      width += growth
    if g < 3:
      stages[f'transition{g}'] = Transition(width)
  return Stages(
    {**stages, 'pool': NormPool(width), 'head': Head(width, classes)}
  )
