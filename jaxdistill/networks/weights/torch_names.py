"""The names that PyTorch code gives to the tensors of the networks.

A naming maps a network to stage -> {part of the stage: name}. A part is a
layer, or a parameter of the stage itself. If its name is a tuple, it is stored
in several tensors, each of which has an equal share of the outputs. The namings
are those of
https://github.com/pytorch/vision ('torchvision'),
https://github.com/huggingface/pytorch-image-models ('timm'),
https://github.com/huggingface/transformers ('huggingface' and
'huggingface_dinov3'),
https://github.com/lukemelas/EfficientNet-PyTorch ('efficientnet_pytorch'),
https://github.com/CSAILVision/semantic-segmentation-pytorch ('csail') and
https://github.com/HobbitLong/RepDistiller ('repdistiller').
"""

from collections.abc import Callable
import re

from jaxdistill.core.types import Network
from jaxdistill.networks import graph
from jaxdistill.networks.layers import attention, inverted_residual
from jaxdistill.networks.models import (
  convnext,
  densenet,
  imagenet_resnet,
  resnet,
  shufflenet,
  vgg,
)
from jaxdistill.networks.weights import (
  torch_mobile_names,
  torch_naming,
  torch_patch_names,
)
from jaxdistill.networks.weights.torch_naming import Names, Namings

# Other spellings of the same names, in older files and by wrappers.
RESPELLED = (
  (r'^module\.', ''),
  (r'(denselayer\d+\.(?:norm|conv))\.(\d)', r'\1\2'),
  (r'mlp\.linear_1\.', 'mlp.0.'),
  (r'mlp\.linear_2\.', 'mlp.3.'),
  (r'^feature\.', 'features.'),
  (r'^(vit|dinov2|dinov2_with_registers|convnext|vision_model)\.', ''),
)
# Tensors that are no part of the network: counts of wrappers, the tower for
# texts, and what only the training of the teacher used.
IGNORED = re.compile(
  r'^(n_averaged|logit_scale|logit_bias|(text_model|text_projection|'
  r'visual_projection)\..*)$|(^|\.)(mask_token|position_ids|'
  r'num_batches_tracked|pooler\.dense\.(weight|bias))$'
)
# Linear layers that timm stores as convolutions -> the size of their kernels.
LINEAR_AS_CONV = {'pre_logits.fc1': 7, 'pre_logits.fc2': 1, 'conv_head': 1}
# End of a name -> the shape of its tensor, given that of the variable.
SHAPES: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
  'position_embedding.weight': lambda shape: shape[1:],
  'class_embedding': lambda shape: shape[2:],
  'layer_scale': lambda shape: (*shape, 1, 1),
}


def namings(network: Network) -> dict[str, Names]:
  """Returns naming -> names of the tensors, with the usual naming first."""
  blocks = [s.module for s in network.stages if '.' in s.name]
  for kind, of_kind in _NAMINGS:
    if blocks and isinstance(blocks[0], kind):
      return {name: make(network) for name, make in of_kind(network).items()}
  return {}


def epsilon(network: Network, naming: str) -> float:
  """Returns the epsilon of the batch norms in the code of a naming."""
  if any(getattr(s.module, 'same_padding', False) for s in network.stages):
    return 1e-3
  v3 = any(stage.name == 'hidden' for stage in network.stages)
  return 1e-3 if v3 and naming == 'torchvision' else 1e-5


# Naming -> the names of a stem of three convolutions.
_DEEP_STEMS = {
  'csail': torch_naming.numbered('', 3),
  'timm': {
    **{'conv1': 'conv1.0', 'norm1': 'conv1.1', 'conv2': 'conv1.3'},
    **{'norm2': 'conv1.4', 'conv3': 'conv1.6', 'norm3': 'bn1'},
  },
}


def _resnets(network: Network) -> Namings:
  def make(shortcut, head, stem=None):
    def names(network):
      stages = {
        'stem': stem or torch_naming.pair('conv1', 'bn1'),
        'head': {'linear': head},
      }
      for stage, g, b, _ in torch_naming.blocks(network):
        prefix = f'layer{g}.{b - 1}.'
        stages[stage.name] = {
          **torch_naming.numbered(prefix, 3),
          'shortcut_conv': f'{prefix}{shortcut}.0',
          'shortcut_norm': f'{prefix}{shortcut}.1',
        }
      return stages

    return names

  torchvision = make('downsample', 'fc')
  repdistiller = make('shortcut', 'linear')
  if isinstance(network.stages[0].module, imagenet_resnet.DeepStem):
    return {k: make('downsample', 'fc', v) for k, v in _DEEP_STEMS.items()}
  large = {'torchvision': torchvision, 'timm': torchvision}
  if 'group4' not in graph.groups(network):
    return {'repdistiller': torchvision, **large}
  if network.stages[0].module.kernel == 7:
    return {**large, 'repdistiller': repdistiller}
  return {'repdistiller': repdistiller, **large}


def _wide_resnets(network: Network) -> Namings:
  def names(network):
    stages = {
      'stem': {'conv': 'conv1'},
      'pool': {'norm': 'bn1'},
      'head': {'linear': 'fc'},
    }
    for stage, g, b, _ in torch_naming.blocks(network):
      prefix = f'block{g}.layer.{b - 1}.'
      stages[stage.name] = {
        **torch_naming.numbered(prefix, 2),
        'shortcut_conv': f'{prefix}convShortcut',
      }
    return stages

  del network
  return {'repdistiller': names}


def _vggs(network: Network) -> Namings:
  def torchvision(network):
    stages, index = {}, 0
    for stage, *_ in torch_naming.blocks(network):
      index += stage.module.pool
      stages[stage.name] = torch_naming.pair(
        f'features.{index}', f'features.{index + 1}'
      )
      index += 3 if stage.module.norm else 2
    return stages

  def with_heads(hidden1, hidden2, head):
    return lambda network: {
      **torchvision(network),
      'hidden1': {'linear': hidden1},
      'hidden2': {'linear': hidden2},
      'head': {'linear': head},
    }

  def repdistiller(network):
    stages = {'head': {'linear': 'classifier'}}
    for stage, g, b, _ in torch_naming.blocks(network):
      index = (b - 1) * (3 if stage.module.norm else 2)
      stages[stage.name] = torch_naming.pair(
        f'block{g - 1}.{index}', f'block{g - 1}.{index + 1}'
      )
    return stages

  if any(stage.name == 'hidden1' for stage in network.stages):
    return {
      'torchvision': with_heads('classifier.0', 'classifier.3', 'classifier.6'),
      'timm': with_heads('pre_logits.fc1', 'pre_logits.fc2', 'head.fc'),
    }
  return {
    'repdistiller': repdistiller,
    'torchvision': with_heads('', '', 'classifier'),
  }


def _shufflenets_v1(network: Network) -> Namings:
  del network
  return {
    'repdistiller': lambda network: {
      'stem': torch_naming.pair('conv1', 'bn1'),
      'head': {'linear': 'linear'},
      **{
        stage.name: torch_naming.numbered(f'layer{g}.{b - 1}.', 3)
        for stage, g, b, _ in torch_naming.blocks(network)
      },
    }
  }


def _shufflenets_v2(network: Network) -> Namings:
  left = ('left_depthwise_', 'left_pointwise_')
  right = ('expand_', 'depthwise_', 'project_')

  def repdistiller(network):
    stages = {
      'stem': torch_naming.pair('conv1', 'bn1'),
      'last': torch_naming.pair('conv2', 'bn2'),
      'head': {'linear': 'linear'},
    }
    for stage, g, b, _ in torch_naming.blocks(network):
      prefix, block = f'layer{g}.{b - 1}.', {}
      parts = (*left, *right) if stage.module.down else right
      for n, part in enumerate(parts, 1):
        block |= torch_naming.pair(f'{prefix}conv{n}', f'{prefix}bn{n}', part)
      stages[stage.name] = block
    return stages

  def torchvision(network):
    stages = {
      'stem': torch_naming.pair('conv1.0', 'conv1.1'),
      'last': torch_naming.pair('conv5.0', 'conv5.1'),
      'head': {'linear': 'fc'},
    }
    for stage, g, b, _ in torch_naming.blocks(network):
      one, two = (f'stage{g + 1}.{b - 1}.branch{i}.' for i in (1, 2))
      block = {}
      for (n, prefix), part in zip(
        ((0, one), (2, one), (0, two), (3, two), (5, two)), (*left, *right)
      ):
        block |= torch_naming.pair(f'{prefix}{n}', f'{prefix}{n + 1}', part)
      stages[stage.name] = block
    return stages

  if network.stages[0].module.kernel == 3:
    return {'torchvision': torchvision, 'repdistiller': repdistiller}
  return {'repdistiller': repdistiller, 'torchvision': torchvision}


def _densenets(network: Network) -> Namings:
  def names(network):
    stages = {
      'stem': torch_naming.pair('features.conv0', 'features.norm0'),
      'pool': {'norm': 'features.norm5'},
      'head': {'linear': 'classifier'},
    }
    for g in (1, 2, 3):
      prefix = f'features.transition{g}'
      stages[f'transition{g}'] = torch_naming.pair(
        f'{prefix}.conv', f'{prefix}.norm'
      )
    for stage, g, b, _ in torch_naming.blocks(network):
      prefix = f'features.denseblock{g}.denselayer{b}.'
      stages[stage.name] = torch_naming.numbered(prefix, 2, 'norm')
    return stages

  del network
  return {'torchvision': names, 'timm': names}


_NAMINGS = (
  ((resnet.BasicBlock, imagenet_resnet.Bottleneck), _resnets),
  (resnet.PreactivationBlock, _wide_resnets),
  (vgg.VGGUnit, _vggs),
  (inverted_residual.InvertedResidual, torch_mobile_names.namings),
  (shufflenet.GroupedUnit, _shufflenets_v1),
  (shufflenet.SplitUnit, _shufflenets_v2),
  (densenet.DenseLayer, _densenets),
  (attention.TransformerBlock, torch_patch_names.transformers),
  (convnext.ConvNextBlock, torch_patch_names.convnexts),
)
