"""Formats of exports: what each needs, and what it refuses in one line."""

import json
import sys
import time

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.transforms import augment
from jaxdistill.study import option_table
from jaxdistill.study.formats import measurements, table
from jaxdistill.study.formats.source import Source
from jaxdistill.tasks import classification, evaluation

MEAN, STD = (100.0,), (50.0,)


@pytest.fixture(scope='module')
def preprocess():
  return augment.standardize(MEAN, STD)


@pytest.fixture(scope='module')
def source(student, preprocess):
  return Source(student, preprocess, (8, 8, 1), {'mean': MEAN, 'std': STD})


def test_the_command_line_offers_every_format():
  assert tuple(table.FORMATS) == option_table.FORMATS


@pytest.mark.parametrize(
  ('kind', 'missing'),
  [
    ('onnx', 'onnxruntime'),
    ('onnx', 'jax2onnx'),
    ('tflite', 'litert_converter'),
    ('tflite', 'ai_edge_quantizer'),
  ],
)
def test_a_missing_package_is_named_before_anything_is_written(
  monkeypatch, kind, missing
):
  packages = dict.fromkeys(table.FORMATS[kind].packages, sys)
  for name, module in {**packages, missing: None}.items():
    monkeypatch.setitem(sys.modules, name, module)
  message = rf'^the format {kind} needs {missing}: pip install '
  with pytest.raises(UsageError, match=message):
    table.check(['safetensors', kind], None)


@pytest.mark.parametrize(
  ('kinds', 'int8', 'message'),
  [
    (['onnxx'], None, "did you mean 'onnx'"),
    (['safetensors'], 'full', "int8: expected the format tflite, got 'safeten"),
    (['stablehlo'], 'weights', "int8: expected the format tflite, got 'stable"),
    (
      ['safetensors'],
      'wights',
      "unknown int8 'wights'; did you mean 'weights'",
    ),
  ],
)
def test_a_format_that_does_not_exist_or_fit_is_refused(kinds, int8, message):
  with pytest.raises(UsageError, match=message):
    table.check(kinds, int8)


@pytest.mark.parametrize(
  'error',
  [
    NotImplementedError("No plugins registered for primitive 'fft'\nin line 3"),
    RuntimeError('failed to legalize operation'),
    KeyError('x' * 1000),
  ],
)
def test_a_network_that_a_format_cannot_hold_is_one_line(
  source, monkeypatch, tmp_path, error
):
  def write(source, path):
    raise error

  refusing = table.FORMATS['tflite']._replace(write=write)
  monkeypatch.setitem(table.FORMATS, 'tflite', refusing)
  path = tmp_path / 'a.tflite'
  with pytest.raises(UsageError) as refused:
    table.write(source, path, 'tflite')
  line = str(refused.value)
  assert line.startswith(f'{path}: the network cannot be written as tflite (')
  assert type(error).__name__ in line
  assert '\n' not in line
  assert len(line) < 500


def test_the_score_of_a_program_is_that_of_its_model(
  source, dataset, preprocess, tmp_path, monkeypatch
):
  monkeypatch.setattr(measurements, '_BATCH', 4)  # 14 images: the last has 2
  path = tmp_path / 'a.safetensors'
  table.write(source, path, 'safetensors')
  run = table.FORMATS['safetensors'].read(source, path)
  task, split = classification(), dataset.splits['test']
  score = measurements.score(run, split, task, preprocess)
  metrics = evaluation.evaluate(source.model, split, task, preprocess)
  assert score == pytest.approx(metrics[task.score.name])


def test_a_latency_is_the_median_of_the_calls(monkeypatch):
  monkeypatch.setattr(measurements, '_SECONDS', 0.0)
  monkeypatch.setattr(measurements, '_CALLS', 5)
  clock, durations = [0.0], iter([9.0, 0.003, 0.001, 0.002, 0.5, 0.002])
  monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])

  def run(image):
    clock[0] += next(durations)

  assert measurements.latency(run, np.zeros((1, 2, 2, 1))) == pytest.approx(2.0)


def test_a_latency_names_the_runtime_and_the_processor():
  machine = measurements.machine('numpy')
  assert machine['runtime'] == f'numpy {np.__version__}'
  assert machine['processor']
  json.dumps(machine)
