"""Architectures as ordered tuples of named stages."""

from collections.abc import Callable
import functools

from jaxdistill.networks import resnet, vgg
from jaxdistill.networks.files import (
  count_parameters,
  from_spec,
  load,
  save,
  to_spec,
)
from jaxdistill.networks.staged import (
  apply,
  check_cut,
  from_linen,
  init,
  opaque,
  run,
  shapes,
  splice,
  stages_between,
)
from jaxdistill.types import Network

_resnet_x4 = functools.partial(
  resnet.cifar_resnet, stem_width=32, widths=(64, 128, 256)
)

# Name -> function of (num_classes, ...) that makes the network.
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
}

__all__ = [
  'NETWORKS',
  'apply',
  'check_cut',
  'count_parameters',
  'from_linen',
  'from_spec',
  'init',
  'load',
  'opaque',
  'run',
  'save',
  'shapes',
  'splice',
  'stages_between',
  'to_spec',
]
