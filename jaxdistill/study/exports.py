"""Exports: a student as a file, checked against the student."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import jax

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Model, Output
from jaxdistill.networks import graph
from jaxdistill.networks.weights import files
from jaxdistill.study import results, selection, stablehlo
from jaxdistill.study.drafts import slug
from jaxdistill.study.plans import Plan
from jaxdistill.training import checkpoint


def export(
  plan: Plan,
  workdir: str | os.PathLike[str],
  formats: Sequence[str] = ('safetensors',),
  rows: Sequence[str] = (),
) -> list[pathlib.Path]:
  """Writes each finished student without its teacher, last and best.

  Each file is read back, and its outputs for test images are compared with the
  student's.

  Args:
    plan: what was run.
    workdir: the work directory.
    formats: any of 'safetensors' and 'stablehlo'. The first holds the
      variables; its metadata describe the network and how to preprocess images.
      The second is a program from raw uint8 images to logits, for any batch
      size and for CPU, GPU and TPU, see `stablehlo`; a JSON file with the same
      name describes it.
    rows: labels of rows; empty: all rows.

  Returns:
    The paths of the files.

  Raises:
    UsageError: no student is finished, a row does not exist or belongs to
      another config, or a file cannot be written.
    RuntimeError: the outputs of a file differ from the student's.
  """
  workdir = pathlib.Path(workdir)
  paths = []
  runs = selection.finished_runs(plan, workdir, rows, ('student',))
  for row, seed in runs:
    for when, model in results.trained(plan, row, seed, workdir).items():
      name = f'{slug(row.label)}-{seed}-{when}'
      for kind in formats:
        path = workdir / 'export' / f'{name}.{kind}'
        write(plan, model, path)
        paths.append(path)
  return paths


def write(plan: Plan, model: Model, path: pathlib.Path) -> None:
  """Writes one file and compares its outputs with the model's.

  Args:
    plan: holds the preprocessing and the test images.
    model: the student.
    path: ends with '.safetensors' or '.stablehlo'.

  Raises:
    RuntimeError: the outputs differ. The file has been deleted.
  """
  images = jax.numpy.asarray(plan.dataset.splits['test']['image'][:8])
  if path.suffix == '.safetensors':
    file_outputs = _write_safetensors(plan, model, path, images)
  else:
    file_outputs = _write_stablehlo(plan, model, path, images)
  model_outputs = _outputs(plan, model, images)
  eps = stablehlo.rounding(model, plan.image)
  try:
    stablehlo.check(path, file_outputs, model_outputs, eps)
  except RuntimeError:
    path.unlink()
    raise


def _write_safetensors(
  plan: Plan, model: Model, path: pathlib.Path, images: Array
) -> Output:
  """Writes the variables; returns the outputs of the file's model."""
  image_shape = list(plan.image.shape[1:])
  files.save(path, model, {**plan.about_data, 'image_shape': image_shape})
  describes_network = 'network' in files.load_tree(path)[1]
  read = files.load(path, None if describes_network else model.network)
  return _outputs(plan, read, images)


def _write_stablehlo(
  plan: Plan, model: Model, path: pathlib.Path, images: Array
) -> Output:
  """Writes a program and its description; returns the program's outputs."""
  shape = images.shape[1:]
  program = stablehlo.to_stablehlo(model, shape, preprocess=plan.preprocess)
  description = {
    **plan.about_data,
    'input': f'raw images, uint8 [B, {", ".join(map(str, shape))}]',
    'output': _described_output(plan, model),
    'platforms': stablehlo.PLATFORMS,
    'standardized': 'by the program, with mean and std',
  }
  stablehlo.save(path, program)
  try:
    checkpoint.write_json(path.with_name(f'{path.name}.json'), description)
  except UsageError:  # nobody could use the program without its description
    path.unlink()
    raise
  return stablehlo.load(path)(images)


def _described_output(plan: Plan, model: Model) -> Any:
  """Describes the outputs of a program: '[B, 10] logits'."""
  kind = ' logits' if plan.task.class_scores else ''
  shapes = graph.shapes(model.network, {'image': plan.image})
  return jax.tree.map(
    lambda x: f'[B, {", ".join(map(str, x.shape[1:]))}]{kind}',
    graph.output(model.network, shapes),
  )


def _outputs(plan: Plan, model: Model, images: Array) -> Output:
  """Returns a model's outputs for raw images."""
  return stablehlo.outputs(
    model.network, plan.preprocess, model.variables, images
  )
