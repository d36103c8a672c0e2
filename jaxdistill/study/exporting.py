"""Writes a student alone, and asks the file what the student answers."""

import pathlib

import jax

from jaxdistill import experiment, export, recipes
from jaxdistill.networks import files
from jaxdistill.training import checkpoint
from jaxdistill.types import Model

FORMATS = ('safetensors', 'stablehlo')


def write(plan: experiment.Plan, model: Model, path: pathlib.Path) -> None:
  """Writes one file of an export, and checks what it answers."""
  image = plan.dataset.splits['test']['image']
  some = jax.numpy.asarray(image[:8])

  def answers(model: Model) -> jax.Array:
    return export.answers(model.network, plan.preprocess, model.variables, some)

  example = recipes.example(plan.dataset, plan.preprocess, 1)['image']
  about = {
    'label_names': list(plan.dataset.label_names),
    'mean': list(plan.dataset.mean),
    'std': list(plan.dataset.std),
  }
  if path.suffix == '.safetensors':
    shape = list(example.shape[1:])
    files.save(path, model, {**about, 'image_shape': shape})
    held = 'network' in files.load_tree(path)[1]
    found = answers(files.load(path, None if held else model.network))
  else:
    raw = image.shape[1:]
    program = export.to_stablehlo(model, raw, preprocess=plan.preprocess)
    export.save(path, program)
    found = export.load(path)(some)
    checkpoint.write_json(
      path.with_name(f'{path.name}.json'),
      {
        **about,
        'input': f'raw images, uint8 [B, {", ".join(map(str, raw))}]',
        'output': f'[B, {plan.dataset.num_classes}] logits',
        'platforms': export.PLATFORMS,
        'standardized': 'inside, by mean and std',
      },
    )
  try:
    eps = export.rounding(model, example)
    export.check(path, found, answers(model), eps)
  except RuntimeError:
    path.unlink()
    raise
