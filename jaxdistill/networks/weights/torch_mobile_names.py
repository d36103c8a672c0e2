"""The names of PyTorch code for MobileNets and EfficientNets."""

from jaxdistill.core.types import Network, Stage
from jaxdistill.networks.weights import torch_naming
from jaxdistill.networks.weights.torch_naming import Names, Namings


def namings(network: Network) -> Namings:
  """Returns the namings of a MobileNetV2, MobileNetV3 or EfficientNet."""
  modules = {stage.name: stage.module for stage in network.stages}
  blocks = [module for name, module in modules.items() if '.' in name]
  if blocks[0].same_padding:
    return {
      'timm': _timm_mobile,
      'efficientnet_pytorch': _efficientnet_pytorch,
    }
  if 'hidden' in modules:
    return {'torchvision': _torchvision_mobile_v3, 'timm': _timm_mobile_v3}
  if any(block.squeeze for block in blocks):
    return {'torchvision': _torchvision_efficientnet, 'timm': _timm_mobile}
  others = {'torchvision': _torchvision_mobile_v2, 'timm': _timm_mobile}
  if blocks[0].expand:
    return {'repdistiller': _repdistiller_mobile_v2, **others}
  return {**others, 'repdistiller': _repdistiller_mobile_v2}


def _torchvision_mobile_v2(network: Network) -> Names:
  stages, count = {}, 0
  for stage, _, _, i in torch_naming.blocks(network):
    prefix, count = f'features.{i + 1}.conv.', i + 1
    parts = ['expand', 'depthwise'] if stage.module.expand else ['depthwise']
    block: dict[str, str] = {}
    for n, part in enumerate(parts):
      block |= torch_naming.pair(f'{prefix}{n}.0', f'{prefix}{n}.1', f'{part}_')
    n = len(parts)
    block |= torch_naming.pair(f'{prefix}{n}', f'{prefix}{n + 1}', 'project_')
    stages[stage.name] = block
  return {
    'stem': torch_naming.pair('features.0.0', 'features.0.1'),
    **stages,
    'last': torch_naming.pair(
      f'features.{count + 1}.0', f'features.{count + 1}.1'
    ),
    'head': {'linear': 'classifier.1'},
  }


def _repdistiller_mobile_v2(network: Network) -> Names:
  stages = {
    'stem': torch_naming.pair('conv1.0', 'conv1.1'),
    'last': torch_naming.pair('conv2.0', 'conv2.1'),
    'head': {'linear': 'classifier.0'},
  }
  for stage, g, b, _ in torch_naming.blocks(network):
    prefix = f'blocks.{g - 1}.{b - 1}.conv.'
    block: dict[str, str] = {}
    for n, part in enumerate(('expand_', 'depthwise_', 'project_')):
      block |= torch_naming.pair(
        f'{prefix}{3 * n}', f'{prefix}{3 * n + 1}', part
      )
    stages[stage.name] = block
  return stages


def _torchvision_excited(stage: Stage, prefix: str) -> dict[str, str]:
  """Returns the parts of a block with squeeze-and-excitation."""
  parts = ['expand'] if stage.module.expand else []
  parts += ['depthwise', *(['squeeze'] if stage.module.squeeze else [])]
  names = {}
  for n, part in enumerate([*parts, 'project']):
    if part == 'squeeze':
      names['squeeze_conv'] = f'{prefix}.block.{n}.fc1'
      names['excite_conv'] = f'{prefix}.block.{n}.fc2'
    else:
      names |= torch_naming.pair(
        f'{prefix}.block.{n}.0', f'{prefix}.block.{n}.1', f'{part}_'
      )
  return names


def _torchvision_mobile_v3(network: Network) -> Names:
  stages, count = {}, 0
  for stage, _, _, i in torch_naming.blocks(network):
    count = i + 1
    stages[stage.name] = _torchvision_excited(stage, f'features.{count}')
  return {
    'stem': torch_naming.pair('features.0.0', 'features.0.1'),
    **stages,
    'last': torch_naming.pair(
      f'features.{count + 1}.0', f'features.{count + 1}.1'
    ),
    'hidden': {'linear': 'classifier.0'},
    'head': {'linear': 'classifier.3'},
  }


def _torchvision_efficientnet(network: Network) -> Names:
  stages, groups = {}, 0
  for stage, g, b, _ in torch_naming.blocks(network):
    groups = g
    stages[stage.name] = _torchvision_excited(stage, f'features.{g}.{b - 1}')
  return {
    'stem': torch_naming.pair('features.0.0', 'features.0.1'),
    **stages,
    'last': torch_naming.pair(
      f'features.{groups + 1}.0', f'features.{groups + 1}.1'
    ),
    'head': {'linear': 'classifier.1'},
  }


def _efficientnet_pytorch(network: Network) -> Names:
  stages = {
    'stem': torch_naming.pair('_conv_stem', '_bn0'),
    'last': torch_naming.pair('_conv_head', '_bn1'),
    'head': {'linear': '_fc'},
  }
  for stage, _, _, i in torch_naming.blocks(network):
    block: dict[str, str] = {}
    for n, part in enumerate(('expand_', 'depthwise_', 'project_')):
      block |= torch_naming.pair(
        f'_blocks.{i}._{part}conv', f'_blocks.{i}._bn{n}', part
      )
    stages[stage.name] = block
  return stages


def _timm_block(stage: Stage, prefix: str) -> dict[str, str]:
  layers = ['conv_pw', 'conv_dw', 'conv_pwl']
  parts = ['expand_', 'depthwise_', 'project_']
  if not stage.module.expand:
    layers, parts = ['conv_dw', 'conv_pw'], parts[1:]
  names = {
    'squeeze_conv': f'{prefix}.se.conv_reduce',
    'excite_conv': f'{prefix}.se.conv_expand',
  }
  for n, (name, part) in enumerate(zip(layers, parts)):
    names |= torch_naming.pair(f'{prefix}.{name}', f'{prefix}.bn{n + 1}', part)
  return names


def _timm_mobile(network: Network) -> Names:
  return {
    'stem': torch_naming.pair('conv_stem', 'bn1'),
    'last': torch_naming.pair('conv_head', 'bn2'),
    'head': {'linear': 'classifier'},
    **{
      stage.name: _timm_block(stage, f'blocks.{g - 1}.{b - 1}')
      for stage, g, b, _ in torch_naming.blocks(network)
    },
  }


def _timm_mobile_v3(network: Network) -> Names:
  """Returns timm's names; timm splits the group with maps of 14x14 in two."""
  stages: Names = {}
  for stage, g, b, _ in torch_naming.blocks(network):
    later = g == 3 and b > 3
    group, block = (3, b - 4) if later else ((0, 1, 2, 4)[g - 1], b - 1)
    stages[stage.name] = _timm_block(stage, f'blocks.{group}.{block}')
  return {
    'stem': torch_naming.pair('conv_stem', 'bn1'),
    **stages,
    'last': torch_naming.pair('blocks.5.0.conv', 'blocks.5.0.bn1'),
    'hidden': {'linear': 'conv_head'},
    'head': {'linear': 'classifier'},
  }
