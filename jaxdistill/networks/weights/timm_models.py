"""Which network of this library a model of timm is."""

from collections.abc import Mapping
from typing import Any

from jaxdistill.core import checks
from jaxdistill.core.types import Network
from jaxdistill.networks import registry

_REGISTERS = {'registers': 4, 'positions': 'patches', 'antialias': True}
_TF = (
  'tf_efficientnet_lite0',
  'tf_efficientnet_lite1',
  'tf_efficientnet_lite2',
)
# Architecture of timm, without the tag of its weights -> (network, arguments).
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
  **{f'resnet{d}': (f'resnet{d}', {}) for d in (18, 34, 50, 101, 152)},
  'mobilenetv2_100': ('mobilenet_v2', {}),
  'mobilenetv3_small_100': ('mobilenet_v3_small', {'epsilon': 1e-5}),
  'efficientnet_b0': ('efficientnet_b0', {'epsilon': 1e-5}),
  **{name: (name.removeprefix('tf_'), {}) for name in _TF},
  'densenet121': ('densenet121', {}),
  **{
    f'convnext_{size}': (f'convnext_{size}', {})
    for size in ('tiny', 'small', 'base', 'large')
  },
  **{
    name: ('deit_tiny', {})
    for name in ('vit_tiny_patch16_224', 'deit_tiny_patch16_224')
  },
  **{
    f'{family}_{size}_patch{patch}_224': (f'vit_{size[0]}{patch}', {})
    for family, size, patch in (
      ('vit', 'small', 16),
      ('deit', 'small', 16),
      ('vit', 'base', 16),
      ('deit', 'base', 16),
      ('vit', 'base', 32),
      ('vit', 'large', 16),
    )
  },
  **{
    f'vit_{size}_patch14_{tag}': (f'dinov2_{size}', arguments)
    for size in ('small', 'base', 'large')
    for tag, arguments in (
      ('dinov2', {'antialias': True}),
      ('reg4_dinov2', _REGISTERS),
    )
  },
}
# Networks without a classifier exist only in these families.
_HEADLESS = ('vit', 'deit', 'dinov2', 'convnext')


def network(where: str, config: Mapping[str, Any], image_size: int) -> Network:
  """Returns the network of a model of timm.

  Args:
    where: the file, for messages.
    config: the content of its config.json.
    image_size: the height and width of the images of its training.

  Raises:
    UsageError: the architecture is unknown, or an entry is not valid.
  """
  architecture = str(config['architecture']).partition('.')[0]
  checks.choice(f'architecture in {where}', architecture, ARCHITECTURES)
  name, arguments = ARCHITECTURES[architecture]
  num_classes = checks.integer(
    f'{where}: num_classes', config.get('num_classes', 1000), at_least=0
  )
  arguments = dict(arguments)
  if name.startswith(_HEADLESS):
    arguments['head'] = num_classes > 0
  if name.startswith(('vit', 'deit', 'dinov2')):
    arguments['image_size'] = image_size
  return registry.create(name, num_classes=max(num_classes, 1), **arguments)
