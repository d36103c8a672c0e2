"""RetinaNet on ResNet-18 and its loss in plain PyTorch, written out.

Boxes and anchors are (top, left, bottom, right) in pixels. Only PyTorch is
imported, for the fixture of the parity test and for benchmarks/detection.py.
"""

import math

import torch
from torch import nn
from torch.nn import functional

LEVELS = (3, 4, 5, 6, 7)
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
POSITIVE, NEGATIVE = 0.5, 0.4
BETA = 1 / 9


class Block(nn.Module):
  """Two 3x3 convolutions with batch norm, and a shortcut."""

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.norm1 = nn.BatchNorm2d(outputs)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.norm2 = nn.BatchNorm2d(outputs)
    self.shortcut = nn.Identity()
    if stride != 1 or inputs != outputs:
      self.shortcut = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False),
        nn.BatchNorm2d(outputs),
      )

  def forward(self, x):
    y = functional.relu(self.norm1(self.conv1(x)))
    return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Backbone(nn.Module):
  """ResNet-18 without its classifier; gives the maps of the last 3 groups."""

  def __init__(self, widths):
    super().__init__()
    self.stem = nn.Sequential(
      nn.Conv2d(3, widths[0], 7, 2, 3, bias=False),
      nn.BatchNorm2d(widths[0]),
      nn.ReLU(),
      nn.MaxPool2d(3, 2, 1),
    )
    inputs, groups = widths[0], []
    for i, width in enumerate(widths):
      groups.append(
        nn.Sequential(
          Block(inputs, width, 2 if i else 1), Block(width, width, 1)
        )
      )
      inputs = width
    self.groups = nn.ModuleList(groups)

  def forward(self, x):
    x, maps = self.stem(x), []
    for group in self.groups:
      x = group(x)
      maps.append(x)
    return maps[-3:]


class Pyramid(nn.Module):
  """P3 to P7 of the maps C3 to C5."""

  def __init__(self, inputs, width):
    super().__init__()
    self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in inputs)
    self.level = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in inputs)
    self.p6 = nn.Conv2d(inputs[-1], width, 3, 2, 1)
    self.p7 = nn.Conv2d(width, width, 3, 2, 1)

  def forward(self, *maps):
    merged = self.lateral[-1](maps[-1])
    levels = [merged]
    for i in range(len(maps) - 2, -1, -1):
      size = maps[i].shape[2:]
      merged = self.lateral[i](maps[i]) + functional.interpolate(merged, size)
      levels.insert(0, merged)
    levels = [conv(x) for conv, x in zip(self.level, levels)]
    p6 = self.p6(maps[-1])
    return [*levels, p6, self.p7(functional.relu(p6))]


class Head(nn.Module):
  """Logits and offsets of all anchors, by convolutions that levels share."""

  def __init__(self, num_classes, width, depth, prior=0.01):
    super().__init__()
    count = len(SCALES) * len(RATIOS)

    def subnet(outputs):
      convs = [nn.Conv2d(width, width, 3, 1, 1) for _ in range(depth)]
      layers = [layer for conv in convs for layer in (conv, nn.ReLU())]
      return nn.Sequential(*layers, nn.Conv2d(width, outputs, 3, 1, 1))

    self.num_classes = num_classes
    self.classes = subnet(count * num_classes)
    self.boxes = subnet(count * 4)
    for module in self.modules():
      if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
    nn.init.constant_(self.classes[-1].bias, -math.log((1 - prior) / prior))

  def forward(self, *levels):
    def joined(subnet, length):
      rows = [subnet(x).permute(0, 2, 3, 1) for x in levels]
      return torch.cat([x.reshape(len(x), -1, length) for x in rows], 1)

    return joined(self.classes, self.num_classes), joined(self.boxes, 4)


class RetinaNet(nn.Module):
  """Backbone, pyramid and head."""

  def __init__(self, num_classes, widths, width, depth):
    super().__init__()
    self.backbone = Backbone(widths)
    self.pyramid = Pyramid(widths[-3:], width)
    self.head = Head(num_classes, width, depth)

  def forward(self, image):
    levels = self.pyramid(*self.backbone(image))
    return *self.head(*levels), [x.shape[2:] for x in levels]


def anchors(sizes, *, stride=8, size=4.0):
  """Returns the anchors of all levels, `[A, 4]`."""
  rows = []
  for i, (height, width) in enumerate(sizes):
    step = stride * 2**i
    for y in range(height):
      for x in range(width):
        for scale in SCALES:
          for ratio in RATIOS:
            half_height = size * step * scale * math.sqrt(ratio) / 2
            half_width = size * step * scale / math.sqrt(ratio) / 2
            top, left = (y + 0.5) * step, (x + 0.5) * step
            rows.append(
              (
                *(top - half_height, left - half_width),
                *(top + half_height, left + half_width),
              )
            )
  return torch.tensor(rows)


def overlaps(boxes, others):
  """Returns (intersection over union, union) of broadcast boxes."""
  corner = torch.maximum(boxes[..., :2], others[..., :2])
  end = torch.minimum(boxes[..., 2:], others[..., 2:])
  shared = (end - corner).clamp(min=0).prod(-1)
  area, other_area = (
    (x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (boxes, others)
  )
  union = area + other_area - shared
  return shared / union.clamp(min=1e-9), union


def giou(boxes, targets):
  """Returns the GIoU loss of each box."""
  overlap, union = overlaps(boxes, targets)
  corner = torch.minimum(boxes[..., :2], targets[..., :2])
  end = torch.maximum(boxes[..., 2:], targets[..., 2:])
  hull = (end - corner).prod(-1)
  return 1 - overlap + (hull - union) / hull


def focal(logits, targets, alpha=0.25, gamma=2.0):
  """Returns the focal loss of each logit."""
  cross_entropy = functional.binary_cross_entropy_with_logits(
    logits, targets, reduction='none'
  )
  p = torch.sigmoid(logits)
  right = p * targets + (1 - p) * (1 - targets)
  weight = alpha * targets + (1 - alpha) * (1 - targets)
  return weight * (1 - right) ** gamma * cross_entropy


def centre_and_size(boxes):
  return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def decode(offsets, of_anchors):
  """Returns the boxes that anchors become by offsets."""
  centre, size = centre_and_size(of_anchors)
  centre = centre + offsets[..., :2] * size
  half = torch.exp(offsets[..., 2:].clamp(max=math.log(1000 / 16))) * size / 2
  return torch.cat([centre - half, centre + half], -1)


def losses(logits, offsets, of_anchors, boxes, labels, box_loss='smooth_l1'):
  """Returns (class loss, box loss) of one image with at least one box.

  Args:
    logits: `[A, K]`.
    offsets: `[A, 4]`.
    of_anchors: `[A, 4]`.
    boxes: `[M, 4]`.
    labels: the class of each box, `[M]`.
    box_loss: 'smooth_l1' or 'giou'.
  """
  overlap, _ = overlaps(of_anchors[:, None], boxes[None])
  largest, chosen = overlap.max(1)
  chosen = chosen.where(largest >= POSITIVE, torch.tensor(-2))
  chosen = chosen.where(largest >= NEGATIVE, torch.tensor(-1))
  is_best = (overlap > overlap.max(0).values - 1e-5) & (overlap > 0)
  claim = overlap.where(is_best, torch.tensor(0.0))
  chosen = claim.argmax(1).where(claim.max(1).values > 0, chosen)
  positive = chosen >= 0
  count = positive.sum().clamp(min=1)
  targets = torch.zeros_like(logits)
  targets[positive, labels[chosen[positive]]] = 1
  class_loss = focal(logits, targets)[chosen != -2].sum() / count
  true, anchor = boxes[chosen[positive]], of_anchors[positive]
  if box_loss == 'giou':
    distance = giou(decode(offsets[positive], anchor), true)
  else:
    (centre, size), (anchor_centre, anchor_size) = map(
      centre_and_size, (true, anchor)
    )
    encoded = torch.cat(
      [
        (centre - anchor_centre) / anchor_size,
        torch.log(size.clamp(min=1e-3) / anchor_size),
      ],
      -1,
    )
    # PyTorch's is divided by beta, as that of Detectron.
    distance = functional.smooth_l1_loss(
      offsets[positive], encoded, reduction='none', beta=BETA
    ).sum(-1)
  return class_loss, distance.sum() / count
