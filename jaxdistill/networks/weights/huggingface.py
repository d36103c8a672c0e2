"""Reads models of transformers and timm from folders, config.json included.

Which network the weights belong to follows from config.json alone; no code is
imported or executed from the folder.
"""

from collections.abc import Callable, Mapping
import functools
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks.models import convnext, vit
from jaxdistill.networks.weights import hub, pretrained, timm_models

WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
# What a folder says about its weights.
DESCRIPTIONS = ('config.json', 'preprocessor_config.json')
# The channels of the images that all these models expect.
CHANNELS = 3
# Name in transformers -> name in `vit`.
_ACTIVATIONS = {
  'gelu': 'gelu',
  'gelu_new': 'gelu_tanh',
  'gelu_pytorch_tanh': 'gelu_tanh',
  'quick_gelu': 'quick_gelu',
}
# The part of a config that describes the tower for images.
_VISION = 'vision_config'


class Pretrained(NamedTuple):
  """A model of a folder.

  Attributes:
    model: the network and its variables.
    metadata: what is known about its images and outputs: 'mean' and 'std' of
      its images from 0 to 255, and 'label_names', each of them only if the
      folder says it.
    image_size: the height and width of the images of its training; 0: unknown.
    about: its licence and revision, in words.
  """

  model: Model
  metadata: dict[str, Any]
  image_size: int
  about: str


def load(reference: str | os.PathLike) -> Pretrained:
  """Returns a pretrained model of the Hugging Face Hub or of a folder.

  Args:
    reference: 'hf:OWNER/NAME', 'hf:OWNER/NAME@REVISION', or a folder that holds
      config.json and model.safetensors (or pytorch_model.bin, of which only
      tensors are read), as transformers and timm write them. If it holds
      preprocessor_config.json, this says how images were standardised.

  Returns:
    The model and what is known about it. It expects images that are
    standardised by its own 'mean' and 'std'.

  Raises:
    UsageError: a file is missing or damaged, the architecture is unknown, or a
      name cannot be downloaded.
  """
  path = hub.folder(reference)
  config = _json(path / 'config.json')
  if 'architecture' in config:
    settings = config.get('pretrained_cfg')
    settings = settings if isinstance(settings, dict) else {}
    sizes = _Config(path, settings).wholes('input_size', (CHANNELS, 224, 224))
    image_size = sizes[-1]
    where = str(path / 'config.json')
    network = timm_models.network(where, config, image_size)
    metadata = _standardization(settings, '')
    labels = config.get('label_names') or []
  else:
    network, image_size = _network(path, config)
    processor = path / 'preprocessor_config.json'
    has_processor = processor.exists()
    metadata = (
      _standardization(_json(processor), 'image_') if has_processor else {}
    )
    labels = _labels(config)
  if labels and network.stages[-1].name == 'head':
    metadata['label_names'] = list(labels)
  image = jax.ShapeDtypeStruct(
    (1, image_size, image_size, CHANNELS), jnp.float32
  )
  variables = pretrained.load(weights_file(path), network, {'image': image})
  model = Model(network, variables)
  return Pretrained(model, metadata, image_size, hub.about(path))


def weights_file(path: pathlib.Path) -> pathlib.Path:
  """Returns the file of the weights in a folder.

  Raises:
    UsageError: there is none.
  """
  for name in WEIGHTS:
    if (path / name).exists():
      return path / name
  raise UsageError(f'{path}: expected a file {" or ".join(WEIGHTS)}, got none')


def _json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the content of a JSON file that holds names and values."""
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UsageError(f'{path}: no such file') from None
  except (ValueError, OSError, RecursionError) as error:
    raise UsageError(
      f'{path}: expected JSON ({" ".join(str(error).split())})'
    ) from None
  if not isinstance(content, dict):
    raise UsageError(f'{path}: expected names and values, got {content!r:.50}')
  return content


def _standardization(content: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  """Returns the mean and std of images from 0 to 255, if they are there."""
  if not content.get('do_normalize', True):
    return {'mean': [0.0] * CHANNELS, 'std': [255.0] * CHANNELS}
  found = {}
  for name in ('mean', 'std'):
    values = content.get(f'{prefix}{name}')
    if isinstance(values, list) and all(
      type(x) in (int, float) for x in values
    ):
      found[name] = [255.0 * x for x in values]
  return found if len(found) == 2 else {}


def _labels(config: Mapping[str, Any]) -> list[str]:
  """Returns the names of the classes in the order of the outputs."""
  labels = config.get('id2label')
  if not isinstance(labels, dict):
    return []
  try:
    return [str(labels[key]) for key in sorted(labels, key=int)]
  except ValueError:
    return []


class _Config:
  """The values of a config.json, or of its part about images.

  Attributes:
    path: the folder, for messages.
    values: name -> value.
  """

  def __init__(self, path: pathlib.Path, values: Mapping[str, Any]):
    self.path, self.values = path, values

  def whole(self, name: str, default: int, *, at_least: int = 1) -> int:
    return checks.integer(
      f'{self.path}: config.json: {name}',
      self.values.get(name, default),
      at_least=at_least,
    )

  def number(self, name: str, default: float) -> float:
    return checks.number(
      f'{self.path}: config.json: {name}',
      self.values.get(name, default),
      at_least=0,
    )

  def wholes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    values = self.values.get(name, default)
    if not isinstance(values, list | tuple):
      raise UsageError(
        f'{self.path}: config.json: {name}: expected a list, got {values!r}'
      )
    return tuple(
      checks.integer(f'{self.path}: config.json: {name}', value)
      for value in values
    )

  def expect(self, name: str, expected: Any) -> None:
    """Refuses a variant that the networks of this library do not have."""
    value = self.values.get(name, expected)
    if value != expected:
      raise UsageError(
        f'{self.path}: config.json: expected {name} {expected!r}, which is the '
        f'only one that is known, got {value!r}'
      )

  def activation(self, default: str) -> str:
    name = self.values.get('hidden_act', default)
    return _ACTIVATIONS[
      checks.choice(
        f'hidden_act in {self.path / "config.json"}', str(name), _ACTIVATIONS
      )
    ]


def _network(
  path: pathlib.Path, config: Mapping[str, Any]
) -> tuple[Network, int]:
  """Returns the network of a model of transformers, and its image size."""
  kind = str(config.get('model_type', ''))
  if kind not in FAMILIES:
    raise UsageError(
      f'{path}: config.json: expected one of the model types '
      f'{", ".join(FAMILIES)}, got {kind!r}'
    )
  architecture = str((config.get('architectures') or ('',))[0])
  has_head = architecture.endswith('ForImageClassification')
  if has_head and kind in _WITHOUT_HEAD:
    raise UsageError(
      f'{path}: config.json: expected a model of type {kind!r} without a '
      f'classifier, got {architecture}'
    )
  values = config.get(_VISION, config)
  values = values if isinstance(values, dict) else {}
  settings = {
    'head': has_head,
    'num_classes': len(_labels(config)) or 2,  # transformers' default
  }
  section = _Config(path, values)
  return FAMILIES[kind](section, settings), section.whole('image_size', 224)


def _vit(
  config: _Config,
  make: Callable[..., Network],
  settings: Mapping[str, Any],
  *,
  activation: str = 'gelu',
  patch: int = 16,
  epsilon: float,
) -> Network:
  """Returns a vision transformer; the defaults are those of transformers."""
  width = config.whole('hidden_size', 768)
  depth = config.whole('num_hidden_layers', 12)
  inner = config.whole(
    'intermediate_size', width * config.whole('mlp_ratio', 4)
  )
  config.expect('num_channels', CHANNELS)
  return make(
    width,
    depth,
    config.whole('num_attention_heads', 12),
    patch=config.whole('patch_size', patch),
    inner_widths=(inner,) * checks.integer('depth', depth, at_most=10_000),
    activation=config.activation(activation),
    epsilon=config.number('layer_norm_eps', epsilon),
    **settings,
  )


def _plain_vit(config: _Config, settings: Mapping[str, Any]) -> Network:
  config.expect('qkv_bias', True)
  image_size = config.whole('image_size', 224)
  return _vit(
    config,
    vit.vit,
    {
      **settings,
      'image_size': image_size,
      'antialias': False,
      'pool_tokens': True,
    },
    epsilon=1e-12,
  )


def _dinov2(
  config: _Config, settings: Mapping[str, Any], registers: int = 0
) -> Network:
  config.expect('qkv_bias', True)
  config.expect('use_swiglu_ffn', False)
  registers = config.whole('num_register_tokens', registers, at_least=0)
  return _vit(
    config,
    vit.dinov2,
    {
      **settings,
      'image_size': config.whole('image_size', 224),
      'registers': registers,
      'antialias': registers > 0,
      'pool': 'class_mean' if settings['head'] else 'class',
    },
    patch=14,
    epsilon=1e-6,
  )


def _dinov3(config: _Config, settings: Mapping[str, Any]) -> Network:
  config.expect('use_gated_mlp', False)
  config.expect('key_bias', False)
  config.expect('rope_theta', 100.0)
  return _vit(
    config,
    vit.dinov3,
    {
      **settings,
      'registers': config.whole('num_register_tokens', 0, at_least=0),
    },
    epsilon=1e-5,
  )


def _clip(config: _Config, settings: Mapping[str, Any]) -> Network:
  return _vit(
    config,
    vit.clip,
    {**settings, 'image_size': config.whole('image_size', 224)},
    activation='quick_gelu',
    patch=32,
    epsilon=1e-5,
  )


def _siglip(config: _Config, settings: Mapping[str, Any]) -> Network:
  config.expect('vision_use_head', True)
  return _vit(
    config,
    vit.siglip,
    {**settings, 'image_size': config.whole('image_size', 224)},
    activation='gelu_pytorch_tanh',
    epsilon=1e-6,
  )


def _convnext(
  config: _Config, settings: Mapping[str, Any], epsilon: float = 1e-12
) -> Network:
  config.expect('num_channels', CHANNELS)
  config.expect('hidden_act', 'gelu')
  return convnext.convnext(
    config.wholes('depths', (3, 3, 9, 3)),
    config.wholes('hidden_sizes', (96, 192, 384, 768)),
    patch=config.whole('patch_size', 4),
    last_epsilon=config.number('layer_norm_eps', epsilon),
    **settings,
  )


# model_type of transformers -> function of a config that makes the network.
FAMILIES: dict[str, Callable[[_Config, Mapping[str, Any]], Network]] = {
  'vit': _plain_vit,
  'dinov2': _dinov2,
  'dinov2_with_registers': functools.partial(_dinov2, registers=4),
  'dinov3_vit': _dinov3,
  'dinov3_convnext': functools.partial(_convnext, epsilon=1e-6),
  'clip': _clip,
  'clip_vision_model': _clip,
  'siglip': _siglip,
  'siglip_vision_model': _siglip,
  'convnext': _convnext,
}
_WITHOUT_HEAD = (
  *('clip', 'clip_vision_model', 'siglip', 'siglip_vision_model'),
  *('dinov3_vit', 'dinov3_convnext'),
)
