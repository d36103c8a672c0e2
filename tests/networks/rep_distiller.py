"""PyTorch modules with the names of https://github.com/HobbitLong/RepDistiller.

Written for make_fixtures.py, at any width; no test imports it. A module `sum`
marks the value before a block's last ReLU.
"""

import torch
from torch import nn
from torch.nn import functional


def conv(inputs, outputs, kernel, stride=1, groups=1, bias=False):
  return nn.Conv2d(
    inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias
  )


def conv_norm(inputs, outputs, kernel, stride=1, groups=1):
  return (
    conv(inputs, outputs, kernel, stride, groups),
    nn.BatchNorm2d(outputs),
  )


def shuffled(x, groups):
  batch, channels, height, width = x.shape
  x = x.reshape(batch, groups, channels // groups, height, width)
  return x.transpose(1, 2).reshape(batch, channels, height, width)


def pooled(x):
  return x.mean((2, 3))


class BasicBlock(nn.Module):
  """Two 3x3 convolutions; the projection is called 'downsample'."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(inputs, width, 3, stride)
    self.conv2, self.bn2 = conv_norm(width, width, 3)
    self.downsample = nn.Sequential()
    if stride != 1 or inputs != width:
      self.downsample = nn.Sequential(*conv_norm(inputs, width, 1, stride))
    self.sum = nn.Identity()

  def forward(self, x):
    y = functional.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    return functional.relu(self.sum(y + self.downsample(x)))


class PaddedBlock(BasicBlock):
  """BasicBlock with the shortcut 'A' of the ResNet paper."""

  def __init__(self, inputs, width, stride):
    super().__init__(inputs, width, stride)
    self.downsample = nn.Sequential()
    self.stride, self.missing = stride, width - inputs

  def forward(self, x):
    y = functional.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    x = x[:, :, :: self.stride, :: self.stride]
    x = functional.pad(x, (0, 0, 0, 0, 0, self.missing))
    return functional.relu(self.sum(y + x))


class Bottleneck(nn.Module):
  """1x1, 3x3, 1x1 convolution; the projection is called 'shortcut'."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(inputs, width, 1)
    self.conv2, self.bn2 = conv_norm(width, width, 3, stride)
    self.conv3, self.bn3 = conv_norm(width, 4 * width, 1)
    self.shortcut = nn.Sequential()
    if stride != 1 or inputs != 4 * width:
      self.shortcut = nn.Sequential(*conv_norm(inputs, 4 * width, 1, stride))
    self.sum = nn.Identity()

  def forward(self, x):
    y = functional.relu(self.bn1(self.conv1(x)))
    y = functional.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    return functional.relu(self.sum(y + self.shortcut(x)))


class ResNet(nn.Module):
  """The 6n + 2 layers of resnet.py."""

  def __init__(self, depth, stem, widths, classes, block=BasicBlock):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(3, stem, 3)
    inputs = stem
    for g, width in enumerate(widths):
      blocks = []
      for b in range((depth - 2) // 6):
        blocks.append(block(inputs, width, 2 if g and b == 0 else 1))
        inputs = width
      setattr(self, f'layer{g + 1}', nn.Sequential(*blocks))
    self.fc = nn.Linear(inputs, classes)

  def forward(self, x):
    x = functional.relu(self.bn1(self.conv1(x)))
    x = self.layer3(self.layer2(self.layer1(x)))
    return self.fc(pooled(x))


class BottleneckResNet(nn.Module):
  """ResNet50 of resnetv2.py."""

  def __init__(self, stem, widths, classes):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(3, stem, 3)
    inputs = stem
    for g, (width, count) in enumerate(zip(widths, (3, 4, 6, 3))):
      blocks = []
      for b in range(count):
        blocks.append(Bottleneck(inputs, width, 2 if g and b == 0 else 1))
        inputs = 4 * width
      setattr(self, f'layer{g + 1}', nn.Sequential(*blocks))
    self.linear = nn.Linear(inputs, classes)

  def forward(self, x):
    x = functional.relu(self.bn1(self.conv1(x)))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.linear(pooled(x))


class WideBlock(nn.Module):
  """Batch norm and ReLU before each convolution."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.bn1 = nn.BatchNorm2d(inputs)
    self.conv1, self.bn2 = conv_norm(inputs, width, 3, stride)
    self.conv2 = conv(width, width, 3)
    self.convShortcut = None
    if inputs != width:
      self.convShortcut = conv(inputs, width, 1, stride)

  def forward(self, x):
    y = functional.relu(self.bn1(x))
    if self.convShortcut is not None:
      x = self.convShortcut(y)
    return x + self.conv2(functional.relu(self.bn2(self.conv1(y))))


class Layers(nn.Module):
  """A group of blocks under the name 'layer'."""

  def __init__(self, blocks):
    super().__init__()
    self.layer = nn.Sequential(*blocks)

  def forward(self, x):
    return self.layer(x)


class WideResNet(nn.Module):
  """wrn.py."""

  def __init__(self, depth, factor, base, classes):
    super().__init__()
    self.conv1 = conv(3, base, 3)
    inputs = base
    for g in range(3):
      width, blocks = base * factor * 2**g, []
      for b in range((depth - 4) // 6):
        blocks.append(WideBlock(inputs, width, 2 if g and b == 0 else 1))
        inputs = width
      setattr(self, f'block{g + 1}', Layers(blocks))
    self.bn1 = nn.BatchNorm2d(inputs)
    self.fc = nn.Linear(inputs, classes)

  def forward(self, x):
    x = self.block3(self.block2(self.block1(self.conv1(x))))
    return self.fc(pooled(functional.relu(self.bn1(x))))


class VGG(nn.Module):
  """vgg.py with batch norm; a block ends before its last ReLU.

  In the layout of network slimming it has four poolings and no biases.
  """

  def __init__(self, widths, classes, slim=False):
    super().__init__()
    self.pools = 4 if slim else 3
    inputs = 3
    for g, group in enumerate(widths):
      layers = []
      for width in group:
        layers += [
          conv(inputs, width, 3, bias=not slim),
          nn.BatchNorm2d(width),
          nn.ReLU(),
        ]
        inputs = width
      setattr(self, f'block{g}', nn.Sequential(*layers[:-1]))
    self.classifier = nn.Linear(inputs, classes)

  def forward(self, x):
    for g in range(5):
      if 1 <= g <= self.pools:
        x = functional.max_pool2d(x, 2)
      x = functional.relu(getattr(self, f'block{g}')(x))
    return self.classifier(pooled(x))


class InvertedResidual(nn.Module):
  """Expansion, depthwise and projection in one sequence."""

  def __init__(self, inputs, width, stride, expansion):
    super().__init__()
    inner = inputs * expansion
    self.adds = stride == 1 and inputs == width
    self.conv = nn.Sequential(
      *conv_norm(inputs, inner, 1),
      nn.ReLU(),
      *conv_norm(inner, inner, 3, stride, inner),
      nn.ReLU(),
      *conv_norm(inner, width, 1),
    )

  def forward(self, x):
    return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
  """mobilenetv2.py."""

  def __init__(self, factor, last, classes):
    super().__init__()
    inputs = int(32 * factor)
    self.conv1 = nn.Sequential(*conv_norm(3, inputs, 3, 2), nn.ReLU())
    self.blocks = nn.ModuleList()
    for expansion, width, count, stride in (
      (1, 16, 1, 1),
      (6, 24, 2, 1),
      (6, 32, 3, 2),
      (6, 64, 4, 2),
      (6, 96, 3, 1),
      (6, 160, 3, 2),
      (6, 320, 1, 1),
    ):
      blocks = []
      for b in range(count):
        own = int(width * factor)
        step = stride if b == 0 else 1
        blocks.append(InvertedResidual(inputs, own, step, expansion))
        inputs = own
      self.blocks.append(nn.Sequential(*blocks))
    self.conv2 = nn.Sequential(*conv_norm(inputs, last, 1), nn.ReLU())
    self.classifier = nn.Sequential(nn.Linear(last, classes))

  def forward(self, x):
    x = self.conv1(x)
    for block in self.blocks:
      x = block(x)
    return self.classifier(pooled(self.conv2(x)))


class GroupedUnit(nn.Module):
  """A block of ShuffleNetv1.py with three groups."""

  def __init__(self, inputs, width, stride, first_groups):
    super().__init__()
    self.stride, self.groups = stride, first_groups
    branch = width - inputs if stride == 2 else width
    inner = branch // 4
    self.conv1, self.bn1 = conv_norm(inputs, inner, 1, 1, first_groups)
    self.conv2, self.bn2 = conv_norm(inner, inner, 3, stride, inner)
    self.conv3, self.bn3 = conv_norm(inner, branch, 1, 1, 3)
    self.sum = nn.Identity()

  def forward(self, x):
    y = functional.relu(self.bn1(self.conv1(x)))
    y = functional.relu(self.bn2(self.conv2(shuffled(y, self.groups))))
    y = self.bn3(self.conv3(y))
    if self.stride == 1:
      return functional.relu(self.sum(x + y))
    x = functional.avg_pool2d(x, 3, 2, 1)
    return functional.relu(self.sum(torch.cat([y, x], 1)))


class ShuffleNetV1(nn.Module):
  """ShuffleNetv1.py."""

  def __init__(self, stem, widths, classes):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(3, stem, 1)
    inputs = stem
    for g, (width, count) in enumerate(zip(widths, (4, 8, 4))):
      blocks = []
      for b in range(count):
        first = 1 if g == b == 0 else 3
        blocks.append(GroupedUnit(inputs, width, 2 if b == 0 else 1, first))
        inputs = width
      setattr(self, f'layer{g + 1}', nn.Sequential(*blocks))
    self.linear = nn.Linear(inputs, classes)

  def forward(self, x):
    x = functional.relu(self.bn1(self.conv1(x)))
    x = self.layer3(self.layer2(self.layer1(x)))
    return self.linear(pooled(x))


class SplitBlock(nn.Module):
  """BasicBlock of ShuffleNetv2.py."""

  def __init__(self, width):
    super().__init__()
    half = width // 2
    self.conv1, self.bn1 = conv_norm(half, half, 1)
    self.conv2, self.bn2 = conv_norm(half, half, 3, 1, half)
    self.conv3, self.bn3 = conv_norm(half, half, 1)

  def forward(self, x):
    left, y = x.chunk(2, 1)
    y = functional.relu(self.bn1(self.conv1(y)))
    y = self.bn2(self.conv2(y))
    y = functional.relu(self.bn3(self.conv3(y)))
    return shuffled(torch.cat([left, y], 1), 2)


class DownBlock(nn.Module):
  """DownBlock of ShuffleNetv2.py."""

  def __init__(self, inputs, width):
    super().__init__()
    half = width // 2
    self.conv1, self.bn1 = conv_norm(inputs, inputs, 3, 2, inputs)
    self.conv2, self.bn2 = conv_norm(inputs, half, 1)
    self.conv3, self.bn3 = conv_norm(inputs, half, 1)
    self.conv4, self.bn4 = conv_norm(half, half, 3, 2, half)
    self.conv5, self.bn5 = conv_norm(half, half, 1)

  def forward(self, x):
    left = self.bn1(self.conv1(x))
    left = functional.relu(self.bn2(self.conv2(left)))
    right = functional.relu(self.bn3(self.conv3(x)))
    right = self.bn4(self.conv4(right))
    right = functional.relu(self.bn5(self.conv5(right)))
    return shuffled(torch.cat([left, right], 1), 2)


class ShuffleNetV2(nn.Module):
  """ShuffleNetv2.py."""

  def __init__(self, stem, widths, last, classes):
    super().__init__()
    self.conv1, self.bn1 = conv_norm(3, stem, 1)
    inputs = stem
    for g, (width, count) in enumerate(zip(widths, (4, 8, 4))):
      blocks = [SplitBlock(width) for _ in range(count - 1)]
      layer = nn.Sequential(DownBlock(inputs, width), *blocks)
      setattr(self, f'layer{g + 1}', layer)
      inputs = width
    self.conv2, self.bn2 = conv_norm(inputs, last, 1)
    self.linear = nn.Linear(last, classes)

  def forward(self, x):
    x = functional.relu(self.bn1(self.conv1(x)))
    x = self.layer3(self.layer2(self.layer1(x)))
    x = functional.relu(self.bn2(self.conv2(x)))
    return self.linear(pooled(x))
