"""Exports: a student as a file, checked against the student."""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import os
import pathlib
import sys
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import writing
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import graph
from jaxdistill.networks.layers import attention
from jaxdistill.networks.surgery import pooling
from jaxdistill.study import hub_upload, opening, results, selection, stablehlo
from jaxdistill.study import measurements as run_measurements
from jaxdistill.study.formats import card, measurements, table, tflite
from jaxdistill.study.formats import source as source_lib
from jaxdistill.study.formats.source import Run, Source
from jaxdistill.study.labels import slug
from jaxdistill.study.plans import Plan
from jaxdistill.training import checkpoint
from jaxdistill.training.distributed import sharding

# The quantiser looks at this many training images.
_NUM_CALIBRATION = 128


def export(
  plan: Plan,
  workdir: str | os.PathLike[str],
  formats: Sequence[str] = ('safetensors',),
  rows: Sequence[str] = (),
  int8: tflite.Int8 | None = None,
  *,
  adapter: bool = True,
  push_to_hub: str | None = None,
) -> list[pathlib.Path]:
  """Writes each finished student without its teacher, last and best.

  Each file is read back, and its outputs for test images are compared with the
  student's. Beside it are a file with the ending '.json', which describes it
  and holds what was measured, and one with the ending '.md', the model card.

  Args:
    plan: what was run.
    workdir: the work directory.
    formats: any of 'safetensors', 'stablehlo', 'onnx' and 'tflite'. The first
      holds the variables; its metadata describe the network and how to
      preprocess images. The others are programs from raw uint8 images to
      logits: for JAX on CPU, GPU and TPU, see `stablehlo`; for ONNX Runtime;
      and for LiteRT. The latency of the last two is measured, with that of the
      teacher.
    rows: labels of rows; empty: all rows.
    int8: what becomes integers of 8 bits in a format that allows it, 'tflite':
      'weights', or 'full' for weights and features.
    adapter: whether a student of the task `embedding` keeps its last layer,
      which maps its own vector to the teacher's; without it, the files give the
      student's own vector, and their names end with '-feature'. A student that
      learned the labels alone has no such layer.
    push_to_hub: 'OWNER/NAME' of a model on the Hugging Face Hub to which the
      files and their cards are uploaded; see `hub_upload`.

  Returns:
    The paths of the files.

  Raises:
    UsageError: no student is finished, a row does not exist or belongs to
      another config, a package is missing, the format cannot hold the network,
      or a file cannot be written.
    RuntimeError: the outputs of a file differ from the student's.
  """
  table.check(formats, int8)
  if push_to_hub is not None:
    hub_upload.check(push_to_hub)
  if int8 is not None:  # the quantised file is scored
    plan = run_measurements.with_teacher(plan, sharding.make_mesh())
  workdir = pathlib.Path(workdir)
  ending = '' if int8 is None else f'-int8-{int8}'
  if not adapter:
    _check_adapter(plan, int8)
    ending += '-feature'
  teacher_latency = functools.cache(
    lambda kind: _teacher_latency(plan, workdir, kind)
  )
  paths = []
  runs = selection.finished_runs(plan, workdir, rows, ('student',))
  for row, seed in runs:
    is_scored = run_measurements.has_score(plan, row)
    for when, model in results.trained(plan, row, seed, workdir).items():
      name = f'{slug(row.label)}-{seed}-{when}{ending}'
      about = {'row': row.label, 'seed': seed, 'model': when, 'int8': int8}
      if not adapter and is_scored:
        model = pooling.without_head(model)
      for kind in dict.fromkeys(formats):
        path = workdir / 'export' / f'{name}.{kind}'
        with _complete(path):
          facts = {
            **about,
            'format': kind,
            **write(plan, model, path, int8, is_scored=is_scored),
          }
          if 'latency' in facts:
            facts['latency']['teacher'] = teacher_latency(kind)
          _describe(plan, workdir, path, facts)
        paths.append(path)
  if any(table.FORMATS[kind].runtime for kind in formats):
    results.write(plan, workdir)  # the report shows the latencies
  if push_to_hub is not None:
    print(hub_upload.push(plan, paths, push_to_hub), file=sys.stderr)
  return paths


def write(
  plan: Plan,
  model: Model,
  path: pathlib.Path,
  int8: tflite.Int8 | None = None,
  *,
  is_scored: bool = True,
) -> dict[str, Any]:
  """Writes one file and compares its outputs with the model's.

  Args:
    plan: holds the preprocessing and the images.
    model: the student.
    path: ends with a dot and the name of the format.
    int8: see `export`.
    is_scored: whether the model has the score of the task.

  Returns:
    What describes the file, as JSON.

  Raises:
    UsageError: the format cannot hold the network, or the file cannot be
      written.
    RuntimeError: the outputs differ.
  """
  kind = path.suffix[1:]
  _check_int8(model, int8)
  source = source_lib.source(plan, model)
  table.write(source, path, kind)
  run = table.read(source, path, kind)
  images = np.asarray(plan.dataset.splits['test']['image'][:8])
  outputs = stablehlo.outputs(
    model.network,
    plan.preprocess,
    plan.task.final,
    model.variables,
    jnp.asarray(images),
  )
  eps = stablehlo.rounding(model, plan.image)
  stablehlo.check(path, run(images), outputs, eps)
  facts = _about(plan, source, kind)
  if int8 is not None:
    run = _quantized(plan, source, path, int8)
    if is_scored:
      facts['scores'] = _scores(plan, model, run)
  if table.FORMATS[kind].runtime:
    facts['latency'] = {
      'student': measurements.latency(run, images[:1]),
      **measurements.machine(table.FORMATS[kind].runtime),
    }
  size, checksum = path.stat().st_size, opening.sha256(path)
  return {**facts, 'bytes': size, 'sha256': checksum}


def _about(plan: Plan, source: Source, kind: str) -> dict[str, Any]:
  """Returns what the user of a file has to know before running it, as JSON."""
  batch = table.FORMATS[kind].batch
  if not batch:
    return source.about
  image_shape = ', '.join(map(str, source.image_shape))
  platforms = {'platforms': stablehlo.PLATFORMS} if kind == 'stablehlo' else {}
  about = {**source.about, **platforms}
  if plan.task.final_name:
    about['label_names'] = []  # the program does not give scores of classes
  return {
    **about,
    'input': f'raw images, uint8 [{batch}, {image_shape}]',
    'output': _described_output(plan, source.model, batch),
    'standardized': 'by the program, with mean and std',
  }


def _described_output(plan: Plan, model: Model, batch: str) -> Any:
  """Describes the outputs of a program: '[B, 10] logits'."""
  kind = ' logits' if plan.task.class_scores else ''
  if plan.task.final_name:
    kind = f' {plan.task.final_name}'
  shapes = jax.eval_shape(
    lambda image: plan.task.final(graph.apply(*model, image), image.shape[1:3]),
    plan.image,
  )
  return jax.tree.map(
    lambda x: f'[{batch}, {", ".join(map(str, x.shape[1:]))}]{kind}', shapes
  )


def _check_adapter(plan: Plan, int8: tflite.Int8 | None) -> None:
  """Refuses a file without the adapter if none exists, or int8 is measured."""
  if plan.task.probes is None:
    raise UsageError(
      "adapter: expected the task 'embedding', whose students end with an "
      f'adapter, got {plan.task.name!r}'
    )
  if int8 is not None:
    raise UsageError(
      'adapter: expected students with their adapter for int8, because their '
      "vectors are compared with the teacher's"
    )


def _check_int8(model: Model, int8: tflite.Int8 | None) -> None:
  """Refuses a file with which LiteRT ends the whole process."""
  if int8 == 'full' and any(
    isinstance(stage.module, attention.TransformerBlock)
    for stage in model.network.stages
  ):
    raise UsageError(
      "int8: expected 'weights' for a transformer, because LiteRT cannot run "
      "its features in 8 bits, got 'full'"
    )


def _quantized(
  plan: Plan, source: Source, path: pathlib.Path, int8: tflite.Int8
) -> Run:
  """Replaces a file by its quantised form and returns the new function."""
  kind = path.suffix[1:]
  train = plan.dataset.splits['train']['image']
  count = min(_NUM_CALIBRATION, len(train))
  rows = np.linspace(0, len(train) - 1, count).astype(int)
  table.quantize(path, np.asarray(train[rows]), int8)
  return table.read(source, path, kind)


def _scores(plan: Plan, model: Model, run: Run) -> dict[str, Any]:
  """Returns the scores of the student and of its quantised file, as JSON."""
  mesh = sharding.make_mesh()
  scores: dict[str, Any] = {}
  for split in ('validation', 'test'):
    if split in plan.dataset.splits:
      student = run_measurements.evaluate_on(plan, model, split, mesh)
      scores[split] = {
        'student': student[plan.task.score.name],
        'file': measurements.score(
          run, plan.dataset.splits[split], plan.task, plan.preprocess
        ),
      }
  return scores


def _teacher_latency(
  plan: Plan, workdir: pathlib.Path, kind: str
) -> float | None:
  """Returns the milliseconds that the teacher takes in a format.

  Returns None if there is no teacher, or if the format cannot hold it.
  """
  teacher = plan.teacher
  for row in plan.rows:
    if row.role == 'teacher':
      teacher = results.finished(plan, row, row.seeds[0], workdir).carry[
        'teacher'
      ]
  if teacher is None:
    return None
  source = source_lib.source(plan, teacher)
  image = np.asarray(plan.dataset.splits['test']['image'][:1])
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f'teacher.{kind}'
    try:
      table.write(source, path, kind)
      return measurements.latency(table.read(source, path, kind), image)
    except UsageError as error:
      print(f'the latency of the teacher is unknown: {error}', file=sys.stderr)
      return None


@contextlib.contextmanager
def _complete(path: pathlib.Path) -> Iterator[None]:
  """Removes a file and what describes it if one of them cannot be written."""
  try:
    yield
  except BaseException:
    for file in (path, *_beside(path)):
      with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)
    raise


def _beside(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """Returns the paths of the description and of the model card of a file."""
  return path.with_name(f'{path.name}.json'), path.with_name(f'{path.name}.md')


def _describe(
  plan: Plan, workdir: pathlib.Path, path: pathlib.Path, facts: dict[str, Any]
) -> None:
  """Writes the description of a file and its model card."""
  description, model_card = _beside(path)
  checkpoint.write_json(description, facts)
  text = card.text(path.name, facts, results.collect(plan, workdir))
  writing.write(model_card, text)
