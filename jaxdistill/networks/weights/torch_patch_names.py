"""The names of PyTorch code for vision transformers and ConvNeXt."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxdistill.core.types import Network
from jaxdistill.networks.weights import torch_naming
from jaxdistill.networks.weights.torch_naming import Names, Namings


def _made(
  others: Mapping[str, Mapping[str, Any]], prefix: str, block: Mapping[str, Any]
) -> Callable[[Network], Names]:
  """Returns a naming whose blocks all have the same names.

  Args:
    others: stage -> {part: name}, besides the blocks.
    prefix: of the names of a block, with its `group` and its place in it,
      `block`, both counted from 0.
    block: part of a block -> name, or several, without the prefix.
  """

  def joined(start: str, name: Any) -> Any:
    if isinstance(name, tuple):
      return tuple(start + part for part in name)
    return start + name

  def names(network: Network) -> Names:
    stages: Names = {stage: dict(parts) for stage, parts in others.items()}
    for stage, g, b, _ in torch_naming.blocks(network):
      start = prefix.format(group=g - 1, block=b - 1)
      stages[stage.name] = {
        part: joined(start, name) for part, name in block.items()
      }
    return stages

  return names


def _numbered(template: str, ends: tuple[str, ...]) -> tuple[str, ...]:
  return tuple(template.format(end) for end in ends)


_TIMM = _made(
  {
    'stem': {
      'conv': 'patch_embed.proj',
      'class_token': 'cls_token',
      'registers': 'reg_token',
      'positions': 'pos_embed',
      'norm': 'norm_pre',
    },
    'pool': {'norm': 'norm'},
    'head': {'linear': 'head'},
  },
  'blocks.{block}.',
  {
    'norm1': 'norm1',
    'qkv': 'attn.qkv',
    'out': 'attn.proj',
    'scale1': 'ls1.gamma',
    'norm2': 'norm2',
    'dense1': 'mlp.fc1',
    'dense2': 'mlp.fc2',
    'scale2': 'ls2.gamma',
  },
)
_TORCHVISION = _made(
  {
    'stem': {
      'conv': 'conv_proj',
      'class_token': 'class_token',
      'positions': 'encoder.pos_embedding',
    },
    'pool': {'norm': 'encoder.ln'},
    'head': {'linear': 'heads.head'},
  },
  'encoder.layers.encoder_layer_{block}.',
  {
    'norm1': 'ln_1',
    'qkv': 'self_attention.in_proj_',
    'out': 'self_attention.out_proj',
    'norm2': 'ln_2',
    'dense1': 'mlp.0',
    'dense2': 'mlp.3',
  },
)
_HUGGING_FACE_STEM = {
  'conv': 'embeddings.patch_embeddings.projection',
  'class_token': 'embeddings.cls_token',
  'registers': 'embeddings.register_tokens',
  'positions': 'embeddings.position_embeddings',
}
_HUGGING_FACE_ATTENTION = {
  'qkv': _numbered('attention.attention.{}', ('query', 'key', 'value')),
  'out': 'attention.output.dense',
}
_HUGGING_FACE_VIT = _made(
  {
    'stem': _HUGGING_FACE_STEM,
    'pool': {'norm': 'layernorm'},
    'head': {'linear': 'classifier'},
  },
  'encoder.layer.{block}.',
  {
    **_HUGGING_FACE_ATTENTION,
    'norm1': 'layernorm_before',
    'norm2': 'layernorm_after',
    'dense1': 'intermediate.dense',
    'dense2': 'output.dense',
  },
)
_HUGGING_FACE_DINO2 = _made(
  {
    'stem': _HUGGING_FACE_STEM,
    'pool': {'norm': 'layernorm'},
    'head': {'linear': 'classifier'},
  },
  'encoder.layer.{block}.',
  {
    **_HUGGING_FACE_ATTENTION,
    'norm1': 'norm1',
    'scale1': 'layer_scale1.lambda1',
    'norm2': 'norm2',
    'dense1': 'mlp.fc1',
    'dense2': 'mlp.fc2',
    'scale2': 'layer_scale2.lambda1',
  },
)
_HUGGING_FACE_DINO3 = _made(
  {
    'stem': {**_HUGGING_FACE_STEM, 'conv': 'embeddings.patch_embeddings'},
    'pool': {'norm': 'norm'},
    'head': {'linear': 'classifier'},
  },
  'layer.{block}.',
  {
    'norm1': 'norm1',
    'qkv': _numbered('attention.{}_proj', ('q', 'k', 'v')),
    'qv_bias': _numbered('attention.{}_proj.bias', ('q', 'v')),
    'out': 'attention.o_proj',
    'scale1': 'layer_scale1.lambda1',
    'norm2': 'norm2',
    'dense1': 'mlp.up_proj',
    'dense2': 'mlp.down_proj',
    'scale2': 'layer_scale2.lambda1',
  },
)
# CLIP and SigLIP.
_HUGGING_FACE_PAIRED = _made(
  {
    'stem': {
      'conv': 'embeddings.patch_embedding',
      'class_token': 'embeddings.class_embedding',
      'positions': 'embeddings.position_embedding.weight',
      'norm': 'pre_layrnorm',
    },
    'pool': {
      'norm': 'post_layernorm',
      'query': 'head.probe',
      'qkv': 'head.attention.in_proj_',
      'out': 'head.attention.out_proj',
      'norm2': 'head.layernorm',
      'dense1': 'head.mlp.fc1',
      'dense2': 'head.mlp.fc2',
    },
    'head': {'linear': 'classifier'},
  },
  'encoder.layers.{block}.',
  {
    'norm1': 'layer_norm1',
    'qkv': _numbered('self_attn.{}_proj', ('q', 'k', 'v')),
    'out': 'self_attn.out_proj',
    'norm2': 'layer_norm2',
    'dense1': 'mlp.fc1',
    'dense2': 'mlp.fc2',
  },
)


def transformers(network: Network) -> Namings:
  """Returns the namings of a vision transformer."""
  modules: dict[str, Any] = {s.name: s.module for s in network.stages}
  block = modules['group1.block1']
  if block.rotary:
    return {'huggingface': _HUGGING_FACE_DINO3}
  if block.layer_scale:
    return {'huggingface': _HUGGING_FACE_DINO2, 'timm': _TIMM}
  stem = modules['stem']
  if stem.norm:
    return {'huggingface': _HUGGING_FACE_PAIRED, 'timm': _TIMM}
  if not stem.class_token:
    return {'huggingface': _HUGGING_FACE_PAIRED}
  return {
    'timm': _TIMM,
    'torchvision': _TORCHVISION,
    'huggingface': _HUGGING_FACE_VIT,
  }


def _convnext(
  stem: Mapping[str, str],
  transition: tuple[str, str],
  prefix: str,
  block: Mapping[str, str],
  ends: tuple[str, str],
) -> Callable[[Network], Names]:
  """Returns a naming of a ConvNeXt; see `_made`.

  Args:
    stem: the names of the stem.
    transition: the names of the norm and the convolution of a transition, with
      the number of its `group`, from 1.
    prefix: see `_made`.
    block: see `_made`.
    ends: the names of the last norm and of the classifier.
  """

  def names(network: Network) -> Names:
    others: Names = {
      'stem': dict(stem),
      'pool': {'norm': ends[0]},
      'head': {'linear': ends[1]},
    }
    for stage in network.stages:
      if stage.name.startswith('transition'):
        group = int(stage.name.removeprefix('transition'))
        norm, conv = (name.format(group=group) for name in transition)
        others[stage.name] = {'norm': norm, 'conv': conv}
    return _made(others, prefix, block)(network)

  return names


def _torchvision_convnext(network: Network) -> Names:
  """Returns torchvision's names: groups and transitions are one sequence."""
  stages: Names = {
    'stem': torch_naming.pair('features.0.0', 'features.0.1'),
    'pool': {'norm': 'classifier.0'},
    'head': {'linear': 'classifier.2'},
  }
  parts = {'depthwise_conv': 0, 'norm': 2, 'dense1': 3, 'dense2': 5}
  for stage, g, b, _ in torch_naming.blocks(network):
    prefix = f'features.{2 * g - 1}.{b - 1}.'
    stages[stage.name] = {
      'scale': f'{prefix}layer_scale',
      **{part: f'{prefix}block.{place}' for part, place in parts.items()},
    }
    stages[f'transition{g}'] = torch_naming.pair(
      f'features.{2 * g}.1', f'features.{2 * g}.0'
    )
  return stages


def convnexts(network: Network) -> Namings:
  """Returns the namings of a ConvNeXt."""
  del network
  stages = 'stages.{group}'
  return {
    'timm': _convnext(
      torch_naming.pair('stem.0', 'stem.1'),
      (f'{stages}.downsample.0', f'{stages}.downsample.1'),
      f'{stages}.blocks.{{block}}.',
      {
        'depthwise_conv': 'conv_dw',
        'norm': 'norm',
        'dense1': 'mlp.fc1',
        'dense2': 'mlp.fc2',
        'scale': 'gamma',
      },
      ('head.norm', 'head.fc'),
    ),
    'torchvision': _torchvision_convnext,
    'huggingface': _convnext(
      torch_naming.pair('embeddings.patch_embeddings', 'embeddings.layernorm'),
      (
        f'encoder.{stages}.downsampling_layer.0',
        f'encoder.{stages}.downsampling_layer.1',
      ),
      f'encoder.{stages}.layers.{{block}}.',
      {
        'depthwise_conv': 'dwconv',
        'norm': 'layernorm',
        'dense1': 'pwconv1',
        'dense2': 'pwconv2',
        'scale': 'layer_scale_parameter',
      },
      ('layernorm', 'classifier'),
    ),
    'huggingface_dinov3': _convnext(
      torch_naming.pair(
        'stages.0.downsample_layers.0', 'stages.0.downsample_layers.1'
      ),
      (f'{stages}.downsample_layers.0', f'{stages}.downsample_layers.1'),
      f'{stages}.layers.{{block}}.',
      {
        'depthwise_conv': 'depthwise_conv',
        'norm': 'layer_norm',
        'dense1': 'pointwise_conv1',
        'dense2': 'pointwise_conv2',
        'scale': 'gamma',
      },
      ('layer_norm', 'classifier'),
    ),
  }
