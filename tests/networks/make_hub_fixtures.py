"""Makes the fixtures of pretrained folders: tiny models of transformers.

  python tests/networks/make_hub_fixtures.py

It needs torch, transformers and what make_fixtures.py needs. For each model it
writes a folder below hub_fixtures with the files that `save_pretrained` writes,
in half precision, and expected.safetensors: an image, and what the model
computes from it in float32, by the names of the library's features. The weights
are random.
"""

import json
import pathlib

from make_fixtures import last_first, randomize
from safetensors.torch import save_file
import torch
import transformers

HERE = pathlib.Path(__file__).parent / 'hub_fixtures'
SIZES = {
  'hidden_size': 16,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
  'image_size': 28,
  'patch_size': 7,
}
INNER = {**SIZES, 'intermediate_size': 24}
DINO2 = {**SIZES, 'mlp_ratio': 2}
CONVNEXT = {'hidden_sizes': [4, 6, 8, 10], 'depths': [1, 1, 2, 1]}
LABELS = {'id2label': {0: 'cat', 1: 'dog', 2: 'frog'}}
TEXT = {
  'hidden_size': 8,
  'intermediate_size': 8,
  'num_hidden_layers': 1,
  'num_attention_heads': 1,
  'vocab_size': 5,
  'max_position_embeddings': 4,
}
PROCESSOR = {
  'do_normalize': True,
  'image_mean': [0.485, 0.456, 0.406],
  'image_std': [0.229, 0.224, 0.225],
}
CARD = '---\nlicense: apache-2.0\ntags:\n- vision\n---\n\n# A tiny model\n'


def clip_model():
  """Returns a CLIP with both towers."""
  return transformers.CLIPModel(
    transformers.CLIPConfig(
      text_config=TEXT, vision_config=INNER, projection_dim=4
    )
  )


def siglip_model():
  """Returns a SigLIP with both towers."""
  return transformers.SiglipModel(
    transformers.SiglipConfig(text_config=TEXT, vision_config=INNER)
  )


def made(model, config, **arguments):
  """Returns a function that makes a model of transformers."""
  classes = getattr(transformers, model), getattr(transformers, config)
  return lambda: classes[0](classes[1](**arguments))


# Name -> (function that makes it, size of the image).
CASES = {
  'vit': (
    made('ViTForImageClassification', 'ViTConfig', **INNER, **LABELS),
    28,
  ),
  'vit_model': (made('ViTModel', 'ViTConfig', **INNER), 28),
  'dinov2': (made('Dinov2Model', 'Dinov2Config', **DINO2), 28),
  'dinov2_larger': (made('Dinov2Model', 'Dinov2Config', **DINO2), 42),
  'dinov2_classifier': (
    made('Dinov2ForImageClassification', 'Dinov2Config', **DINO2, **LABELS),
    28,
  ),
  'dinov2_registers': (
    made(
      'Dinov2WithRegistersModel',
      'Dinov2WithRegistersConfig',
      **DINO2,
      num_register_tokens=4,
    ),
    21,
  ),
  'dinov3': (
    made('DINOv3ViTModel', 'DINOv3ViTConfig', **INNER, num_register_tokens=4),
    35,
  ),
  'dinov3_convnext': (
    made('DINOv3ConvNextModel', 'DINOv3ConvNextConfig', **CONVNEXT),
    32,
  ),
  'clip': (clip_model, 28),
  'clip_vision': (made('CLIPVisionModel', 'CLIPVisionConfig', **INNER), 28),
  'siglip': (siglip_model, 28),
  'siglip_vision': (
    made('SiglipVisionModel', 'SiglipVisionConfig', **INNER),
    28,
  ),
  'convnext': (
    made(
      'ConvNextForImageClassification', 'ConvNextConfig', **CONVNEXT, **LABELS
    ),
    32,
  ),
}


@torch.no_grad()
def answers(model, image):
  """Returns {feature: what a model of transformers computes}."""
  kind = type(model).__name__
  options = {} if 'ConvNext' in kind else {'output_hidden_states': True}
  output = model(image, **options)
  found = {}
  if options:
    found['group1.block1'] = output.hidden_states[1]
  if 'logits' in output:
    return {**found, 'head': output.logits}
  found['pool'] = output.pooler_output
  if options and 'CLIP' not in kind:
    found['pool.tokens'] = output.last_hidden_state
  if kind == 'ViTModel':  # its pooler is not a part of the network
    found['pool'] = output.last_hidden_state[:, 0]
  return found


def main():
  for name, (build, size) in CASES.items():
    torch.manual_seed(0)
    model = build().eval()
    randomize(model)
    image = torch.randn(1, 3, size, size)
    tower = getattr(model, 'vision_model', model)
    expected = {'image': last_first(image)} | {
      feature: value.clone(memory_format=torch.contiguous_format)
      for feature, value in answers(tower, image).items()
    }
    folder = HERE / name
    model.half().save_pretrained(folder)
    processor = json.dumps(PROCESSOR)
    (folder / 'preprocessor_config.json').write_text(processor)
    (folder / 'README.md').write_text(CARD)
    save_file(expected, folder / 'expected.safetensors')
    print(name, f'{sum(p.numel() for p in model.parameters()):,}')


if __name__ == '__main__':
  main()
