"""The chart of accuracy against latency, from descriptions written by hand."""

import json

import pytest

from jaxdistill.study import report
from jaxdistill.study.page import latencies

MACHINE = {'processor': 'a processor', 'runtime': 'a-runtime 1.2', 'threads': 1}


def row(label, *scores, role='student'):
  seeds = {
    str(seed): {'test': {'last': {'top1': score}}}
    for seed, score in enumerate(scores)
  }
  config = {'method': {'name': 'kd'}, role: {'name': 'resnet8'}}
  return {'label': label, 'config': config, 'seeds': seeds}


RESULTS = {
  'score': 'top1',
  'rows': [row('teacher', 0.97, role='teacher'), row('kd', 0.9, 0.92)],
}


def file(seed, student, teacher=20.0, **others):
  latency = {'student': student, 'teacher': teacher, **MACHINE}
  return {
    **{'row': 'kd', 'seed': seed, 'model': 'last', 'format': 'onnx'},
    **{'int8': None, 'latency': latency, **others},
  }


INT8 = {'int8': 'full', 'scores': {'test': {'student': 0.9, 'file': 0.8}}}


@pytest.fixture
def picture(tmp_path):
  """A function: descriptions -> what the chart says, and all words; or None."""

  def draw(*descriptions, results=RESULTS):
    (tmp_path / 'export').mkdir()
    for i, description in enumerate(descriptions):
      path = tmp_path / f'export/{i}.onnx.json'
      path.write_text(json.dumps(description))
    lines = report.grouped(results)
    score = report.score_of(results)
    parts = list(latencies.parts(tmp_path, lines, score))
    if not parts:
      return None
    texts = [text for part in parts for text in part.itertext()]
    return next(parts[1].iter('svg')).get('aria-label'), ' '.join(texts)

  return draw


def test_seeds_are_averaged_and_the_teacher_is_shown(picture):
  label, words = picture(file(0, 1.0), file(1, 3.0))
  assert label.startswith('Test top1 against ms for one image.')
  assert 'kd (onnx) 2 ms for one image and 91.00' in label
  assert 'teacher (onnx) 20 ms for one image and 97.00' in label
  assert 'a-runtime 1.2 on a processor' in words


def test_a_quantised_file_has_its_own_point_and_its_own_score(picture):
  label, _ = picture(file(0, 4.0), file(0, 1.5, **INT8))
  assert 'kd (onnx) 4 ms for one image and 90.00' in label
  assert 'kd (onnx, int8 full) 1.5 ms for one image and 80.00' in label


@pytest.mark.parametrize(
  'description',
  [
    file(0, 1.0, model='best'),
    file(0, 1.0, teacher=None, row='a row of an earlier config'),
    file(7, 1.0, teacher=None),
    {'row': 'kd', 'seed': 0, 'model': 'last', 'format': 'stablehlo'},
    [],
  ],
)
def test_files_without_a_place_in_the_results_draw_nothing(
  picture, description
):
  assert picture(description) is None


def test_a_teacher_without_a_score_is_left_out(picture):
  results = {**RESULTS, 'rows': RESULTS['rows'][1:]}
  label, _ = picture(file(0, 1.0), results=results)
  assert 'teacher' not in label
