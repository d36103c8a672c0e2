"""Networks by name."""

from collections.abc import Callable
import functools
import inspect
from typing import Any

from jaxdistill.core import checks
from jaxdistill.core.types import Network
from jaxdistill.networks.adapters import programs
from jaxdistill.networks.models import (
  convnext,
  densenet,
  efficientnet,
  imagenet_resnet,
  mobilenet,
  mobilenet_v3,
  preactivation,
  pyramidnet,
  resnet,
  shufflenet,
  vgg,
  vit,
)
from jaxdistill.networks.surgery import (
  dense_heads,
  depth_heads,
  detectors,
  edits,
  embedding,
  narrowing,
  noisy,
  pooling,
  scaling,
  two_stage,
)
from jaxdistill.networks.weights import files

_resnet_x4 = functools.partial(
  resnet.cifar_resnet, stem_width=32, widths=(64, 128, 256)
)

# Name -> function of `num_classes` and more that makes the network.
NETWORKS: dict[str, Callable[..., Network]] = {
  'cifar_resnet': resnet.cifar_resnet,
  **{
    f'resnet{d}': functools.partial(resnet.cifar_resnet, d)
    for d in (8, 14, 20, 32, 44, 56, 110)
  },
  'resnet8x4': functools.partial(_resnet_x4, 8),
  'resnet32x4': functools.partial(_resnet_x4, 32),
  'wide_resnet': resnet.wide_resnet,
  **{
    f'wrn_{depth}_{width}': functools.partial(resnet.wide_resnet, depth, width)
    for depth, widths in {
      10: (1,),
      16: (1, 2, 4),
      22: (4,),
      28: (2, 4, 10),
      40: (1, 2),
    }.items()
    for width in widths
  },
  'cifar_vgg': vgg.cifar_vgg,
  **{f'vgg{d}': functools.partial(vgg.cifar_vgg, d) for d in vgg.CONVOLUTIONS},
  'imagenet_vgg': vgg.imagenet_vgg,
  'preactivation_resnet': preactivation.preactivation_resnet,
  **{
    f'preactivation_resnet{d}': functools.partial(
      preactivation.preactivation_resnet, d
    )
    for d in (56, 110, 164)
  },
  'imagenet_resnet': imagenet_resnet.imagenet_resnet,
  **{
    f'{prefix}resnet{d}': functools.partial(
      imagenet_resnet.imagenet_resnet, d, stem=stem, num_classes=classes
    )
    for d in imagenet_resnet.BLOCKS
    for prefix, stem, classes in (
      ('', 'imagenet', 1000),
      ('cifar_', 'cifar', 10),
    )
  },
  'mobilenet_v1': mobilenet.mobilenet_v1,
  'mobilenet_v2': mobilenet.mobilenet_v2,
  'cifar_mobilenet_v2': mobilenet.cifar_mobilenet_v2,
  'mobilenet_v3_small': mobilenet_v3.mobilenet_v3_small,
  'cifar_shufflenet_v1': shufflenet.cifar_shufflenet_v1,
  'cifar_shufflenet_v2': functools.partial(
    shufflenet.shufflenet_v2, stem='cifar', num_classes=10
  ),
  'shufflenet_v2': shufflenet.shufflenet_v2,
  'efficientnet_b0': efficientnet.efficientnet_b0,
  'efficientnet_lite': efficientnet.efficientnet_lite,
  **{
    f'efficientnet_lite{i}': functools.partial(
      efficientnet.efficientnet_lite, width, depth, dropout=dropout
    )
    for i, (width, depth, dropout) in enumerate(
      ((1.0, 1.0, 0.2), (1.0, 1.1, 0.2), (1.1, 1.2, 0.3))
    )
  },
  'cifar_densenet': densenet.cifar_densenet,
  'densenet40_12': functools.partial(densenet.cifar_densenet, 40, 12),
  'densenet121': densenet.densenet121,
  'cifar_densenet121': functools.partial(
    densenet.densenet121, stem='cifar', num_classes=10
  ),
  'pyramidnet': pyramidnet.pyramidnet,
  **{
    f'pyramidnet{depth}_{widening}': functools.partial(
      pyramidnet.pyramidnet, depth, widening
    )
    for depth, widening in ((110, 64), (200, 240), (200, 300))
  },
  'vit': vit.vit,
  'deit_tiny': functools.partial(vit.vit, 192, 12, 3),
  'vit_s16': functools.partial(vit.vit, 384, 12, 6),
  'vit_b16': functools.partial(vit.vit, 768, 12, 12),
  'vit_b32': functools.partial(vit.vit, 768, 12, 12, patch=32),
  'vit_l16': functools.partial(vit.vit, 1024, 24, 16),
  'vit_h14': functools.partial(vit.vit, 1280, 32, 16, patch=14),
  'convnext': convnext.convnext,
  **{
    f'convnext_{size}': functools.partial(convnext.convnext, blocks, widths)
    for size, blocks, widths in (
      ('tiny', (3, 3, 9, 3), (96, 192, 384, 768)),
      ('small', (3, 3, 27, 3), (96, 192, 384, 768)),
      ('base', (3, 3, 27, 3), (128, 256, 512, 1024)),
      ('large', (3, 3, 27, 3), (192, 384, 768, 1536)),
    )
  },
  **{
    f'{family}_{size}': functools.partial(make, *sizes)
    for family, make in (('dinov2', vit.dinov2), ('dinov3', vit.dinov3))
    for size, sizes in (
      ('small', (384, 12, 6)),
      ('base', (768, 12, 12)),
      ('large', (1024, 24, 16)),
    )
  },
  'clip_b32': functools.partial(vit.clip, 768, 12, 12, patch=32),
  'clip_b16': functools.partial(vit.clip, 768, 12, 12, patch=16),
  'clip_l14': functools.partial(vit.clip, 1024, 24, 16, patch=14),
  'siglip_b16': functools.partial(vit.siglip, 768, 12, 12),
  'siglip_l16': functools.partial(vit.siglip, 1024, 24, 16),
}
# Name -> function of the path of a file that holds a network: its description,
# or a program that computes its outputs.
FILES: dict[str, Callable[..., Network]] = {
  'stored': files.stored,
  'program': programs.program,
}
# Name -> function of `network` and further arguments that changes a network:
# heads for segmentation, depth or detection instead of that of a classifier, a
# vector before its last layer, fewer channels everywhere, fewer channels inside
# its blocks, noise after its blocks in training, fewer, more or other stages,
# some of its stages alone, and another output.
EDITS: dict[str, Callable[..., Network]] = {
  'fcn': dense_heads.fcn,
  'psp': dense_heads.psp,
  'deeplab': dense_heads.deeplab,
  'upconv': depth_heads.upconv,
  'upproj': depth_heads.upproj,
  'embedded': embedding.embedded,
  'retinanet': detectors.retinanet,
  'faster_rcnn': two_stage.faster_rcnn,
  'scaled': scaling.scaled,
  'narrowed': narrowing.narrowed,
  'noisy': noisy.noisy,
  'without': edits.delete,
  'inserted': edits.insert,
  'replaced': edits.replace,
  'stages': edits.stages,
  'pooled': pooling.pooled,
}


def create(name: str, *, num_classes: int, **arguments: Any) -> Network:
  """Returns a network by name, without weights.

  Args:
    name: one of `names()`, such as 'resnet8'.
    num_classes: the number of classes.
    **arguments: further arguments of the network's family, such as `widths` or
      `dtype`; `help(jd.networks.NETWORKS[name])` lists them.

  Raises:
    UsageError: there is no such network, it has no such argument, or a value is
      invalid.

  Example:
    >>> network = create('resnet8', num_classes=10, widths=(8, 16, 32))
    >>> [stage.name for stage in network.stages][:2]
    ['stem', 'group1.block1']
  """
  function = NETWORKS[checks.choice('network', name, NETWORKS)]
  checks.integer('num_classes', num_classes)
  valid = inspect.signature(function).parameters
  for argument in arguments:
    checks.choice(f'argument of {name}', argument, valid)
  return function(num_classes=num_classes, **arguments)


def names() -> tuple[str, ...]:
  """Returns the names of the networks that `create` knows."""
  return tuple(NETWORKS)
