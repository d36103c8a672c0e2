"""report.html: calibration, mistakes and examples, from handwritten files."""

import base64
import io
import json
import types

import numpy as np
import PIL.Image
import pytest

from jaxdistill.analysis import calibration, detections
from jaxdistill.study import examples, measurements, recorded, recording
from jaxdistill.study.page import document
from jaxdistill.tasks import detection

RNG = np.random.default_rng(0)
COUNT = 40
LABEL = np.arange(COUNT) % 4
NAMES = ['ant', 'bee', '<cow>', 'dog']


def row(label, method, score, role='student'):
  keys = {'teacher': {}, 'method': {'name': method}}
  if role == 'student':
    keys['student'] = {'name': 'resnet8'}
  metrics = {'top1': score, 'cosine': score}
  seed = {
    **{'steps': 1, 'seconds': 1.0, 'parameters': 5, 'agreement': None},
    **{'test': {'last': metrics}, 'versions': {}},
    **{'device': 'cpu', 'date': '2026-01-02'},
  }
  return {'label': label, 'config': keys, 'seeds': {'3': seed}}


ROWS = (
  row('teacher', 'supervised', 0.9, role='teacher'),
  row('alone', 'supervised', 0.6),
  row('kd', 'kd', 0.8),
  row('worse', 'at', 0.7),
)


def probabilities(wrong, confidence=0.7):
  """Probabilities that are wrong for the images whose numbers are given."""
  predicted = LABEL.copy()
  predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 4
  values = np.full((COUNT, 4), (1 - confidence) / 3)
  values[np.arange(COUNT), predicted] = confidence
  return values.astype(np.float16)


def keep(folder, **columns):
  folder.mkdir(parents=True, exist_ok=True)
  row = columns.pop('row', np.arange(0, 2 * COUNT, 2, dtype=np.int32))
  np.savez(folder / recorded.FILE, row=row, **columns)


@pytest.fixture
def workdir(tmp_path):
  """A work directory with a teacher and three students."""
  results = {'rows': ROWS, 'score': 'top1', 'label_names': NAMES}
  (tmp_path / 'results.json').write_text(json.dumps(results))
  for label, wrong in (
    ('teacher', {1}),
    ('alone', {0, 4, 8, 5}),
    ('kd', {0, 1, 2}),
    ('worse', {7}),
  ):
    folder = tmp_path / 'rows' / label / '3'
    keep(folder, label=LABEL, probabilities=probabilities(wrong))
  image = RNG.integers(0, 256, (2 * COUNT, 5, 5, 3), np.uint8)
  kept = np.arange(0, 20, 2)
  np.savez(tmp_path / examples.FILE, row=kept, image=image[kept])
  return tmp_path


def page_of(workdir):
  return document.write_report(workdir).path.read_text()


def test_the_calibration_error_is_that_of_the_paper():
  confidence = RNG.uniform(0.2, 1, 300)
  label = RNG.integers(0, 2, 300)
  values = np.stack([confidence, 1 - confidence], -1)
  largest, right = values.max(-1), values.argmax(-1) == label
  expected = 0.0
  for low in np.arange(15) / 15:
    inside = (largest > low) & (largest <= low + 1 / 15)
    if inside.any():
      gap = abs(right[inside].mean() - largest[inside].mean())
      expected += inside.mean() * gap
  error = calibration.expected_calibration_error(values, label)
  assert error == pytest.approx(expected)
  sizes = [b.size for b in calibration.reliability(values, label)]
  assert sum(sizes) == 300


@pytest.mark.parametrize(
  ('label', 'error'), [([0, 0], 0.0), ([1, 1], 1.0), ([0, 1], 0.5)]
)
def test_a_model_that_is_certain_is_calibrated_if_it_is_right(label, error):
  certain = np.array([[1.0, 0.0], [1.0, 0.0]])
  found = calibration.expected_calibration_error(certain, np.array(label))
  assert found == pytest.approx(error)


def test_the_report_compares_the_best_student_the_baseline_and_the_teacher(
  workdir,
):
  results = json.loads((workdir / 'results.json').read_text())
  models = examples.compared(workdir, results)
  assert list(models.by_title) == ['kd', 'alone', 'teacher']
  # Image 0 is wrong for both students, 4 only for the baseline, ...
  found = examples.differing(models)
  assert sorted(found) == [0, 1, 2, 4, 5, 8]
  # ... and images on which the same models are right take turns.
  assert found[:3] == [4, 2, 1] and 0 in found[:4]


def test_the_report_shows_calibration_mistakes_and_images(workdir):
  text = page_of(workdir)
  for title in ('Calibration', 'Confused classes', 'Images on which'):
    assert f'<h2>{title}' in text
  assert 'ant taken for bee' in text and 'bee taken for &lt;cow&gt;' in text
  # kd is right for 37 of 40 images with a confidence of 70 %.
  assert '92.50</td><td class="number">70.02</td>' in text
  assert text.count('kd: bee 70 %') == 2  # images 0 and 5
  assert text.count('<img src="data:image/png;base64,') == 6
  assert '<cow>' not in text


def test_the_images_of_the_report_are_those_of_the_file(workdir):
  kept = examples.read(workdir)
  encoded = page_of(workdir).split('data:image/png;base64,')[1:]
  shown = [
    np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(x.split('"')[0]))))
    for x in encoded
  ]
  for image in shown:
    assert any(np.array_equal(image, other) for other in kept.values())


def spoil(path):
  """Overwrites a part of the compressed content of a file."""
  with np.load(path) as file:
    np.savez_compressed(path, **file)
  content = bytearray(path.read_bytes())
  content[60:90] = 30 * b'\xff'
  path.write_bytes(content)


@pytest.mark.parametrize(
  'damage',
  [
    lambda folder: spoil(folder / 'examples.npz'),
    lambda folder: spoil(folder / 'rows/kd/3/predictions.npz'),
    lambda folder: (folder / 'examples.npz').write_bytes(b'PK'),
    lambda folder: (folder / 'examples.npz').unlink(),
    lambda folder: (folder / 'rows/kd/3/predictions.npz').write_bytes(b''),
    lambda folder: keep(
      folder / 'rows/kd/3', label=LABEL, probabilities=np.ones((COUNT, 3))
    ),
    lambda folder: keep(
      folder / 'rows/alone/3', row=np.arange(COUNT), vectors=np.ones((COUNT, 2))
    ),
  ],
  ids=[
    'spoilt',
    'spoilt predictions',
    'damaged',
    'missing',
    'empty',
    'other classes',
    'vectors',
  ],
)
def test_a_file_that_is_missing_or_odd_costs_only_what_it_shows(
  workdir, damage
):
  damage(workdir)
  assert '<h2>Results' in page_of(workdir)


def test_without_labels_the_teachers_classes_are_the_right_ones(workdir):
  for label in ('teacher', 'alone', 'kd', 'worse'):
    folder = workdir / 'rows' / label / '3'
    with np.load(folder / recorded.FILE) as file:
      keep(folder, probabilities=file['probabilities'])
  text = page_of(workdir)
  assert 'Calibration' not in text and 'Confused' not in text
  assert 'image 8' in text


def test_vectors_are_shown_by_their_nearest_neighbours(workdir):
  angles = np.linspace(0, 3, COUNT)
  near = np.stack([np.cos(angles), np.sin(angles)], -1)
  for label in ('alone', 'worse'):
    (workdir / 'rows' / label / '3' / recorded.FILE).unlink()
  keep(workdir / 'rows/kd/3', vectors=near.astype(np.float16))
  keep(workdir / 'rows/teacher/3', vectors=RNG.normal(size=(COUNT, 7)))
  results = json.loads((workdir / 'results.json').read_text())
  models = examples.compared(workdir, results)
  nearest = examples.neighbors(models)
  assert list(nearest) == [0, 13, 26, 39]
  assert nearest[0]['kd'] == [1, 2, 3, 4]
  assert sorted(nearest[13]['kd']) == [11, 12, 14, 15]
  assert 13 not in nearest[13]['teacher']
  rows = models.first.row[examples.positions(models)]
  image = np.zeros((len(rows), 2, 2, 1), np.uint8)
  np.savez(workdir / examples.FILE, row=rows, image=image)
  text = page_of(workdir)
  assert text.count('class="gallery"') == 8
  assert text.count('neighbour 4') == 8


def test_a_run_keeps_what_its_models_say_and_the_images_of_the_report(finished):
  folder = finished[0]
  results = json.loads((folder / 'results.json').read_text())
  models = examples.compared(folder, results)
  assert list(models.by_title) == ['kd', 'student alone', 'teacher']
  for title, label in (('kd', 'kd'), ('teacher', 'teacher')):
    model = models.by_title[title]
    assert model.probabilities.shape == (30, 3)
    np.testing.assert_allclose(model.probabilities.sum(-1), 1, atol=2e-3)
    np.testing.assert_array_equal(model.label, np.arange(30) % 3)
    accuracy = (model.probabilities.argmax(-1) == model.label).mean()
    row = next(x for x in results['rows'] if x['label'] == label)
    top1 = row['seeds']['0']['test']['last']['top1']
    assert accuracy == pytest.approx(top1, abs=0.07)  # ties after rounding
  shown = models.first.row[examples.positions(models)].tolist()
  assert list(examples.read(folder)) == shown


@pytest.mark.parametrize(
  ('shape', 'expected'),
  [
    ((2, 8, 8, 1), (2, 8, 8, 1)),
    ((2, 200, 100, 3), (2, 96, 48, 3)),
    ((1, 4, 192, 5), (1, 2, 96, 1)),
  ],
)
def test_images_of_the_report_are_small(shape, expected):
  image = np.full(shape, 7, np.uint8)
  small = recording._small(image)
  assert small.shape == expected and (small == 7).all()


def test_the_report_draws_the_boxes_of_the_truth_and_of_each_model(tmp_path):
  results = {'rows': ROWS[:3], 'score': 'top1', 'label_names': ['x', '<y>']}
  (tmp_path / 'results.json').write_text(json.dumps(results))
  truth = np.tile(np.float16([[0, 0.5, 0.5, 1, 1, 1]]), (5, 1, 1))
  for label, score in (('teacher', 0.9), ('alone', 0.1), ('kd', 0.8)):
    found = np.concatenate([truth, 0 * truth - 1], 1)
    found[:, 0, 4] = score
    keep(
      tmp_path / 'rows' / label / '3',
      row=np.arange(5),
      objects=found,
      truth=truth,
    )
  image = np.zeros((5, 20, 30, 3), np.uint8)
  np.savez(tmp_path / examples.FILE, row=np.arange(5), image=image)
  text = page_of(tmp_path)
  assert '<h2>Images with boxes' in text and '&lt;y&gt; (blue)' in text
  # Four images, each with the truth, kd, alone and the teacher.
  assert text.count('<img src="data:image/png;base64,') == 16
  assert text.count('1 objects') == 12 and text.count('0 objects') == 4
  encoded = text.split('data:image/png;base64,')[1].split('"')[0]
  shown = PIL.Image.open(io.BytesIO(base64.b64decode(encoded)))
  blue = (np.asarray(shown) == detections.COLOURS[1]).all(-1)
  assert blue[0, 15:].all() and blue[:11, 29].all() and not blue[:, :15].any()


def test_objects_are_recorded_as_fractions_of_the_image(tmp_path):
  image = np.zeros((3, 400, 800, 3), np.uint8)
  boxes = np.tile(np.float32([[0, 200, 100, 800]]), (3, 1, 1))
  test = {'image': image, 'boxes': boxes, 'classes': np.ones((3, 1), int)}
  plan = types.SimpleNamespace(
    task=detection(), dataset=types.SimpleNamespace(splits={'test': test})
  )
  predictions = np.concatenate([boxes, [[[0.5, 1]]] * 3], -1)
  path = tmp_path / recorded.FILE
  recording._write(plan, path, measurements.Answers(predictions, None))
  with np.load(path) as file:
    np.testing.assert_array_equal(
      file['objects'][0], np.float16([[0, 0.25, 0.25, 1, 0.5, 1]])
    )
    np.testing.assert_array_equal(file['truth'][..., 4:], [[[1, 1]]] * 3)
    assert file['row'].tolist() == [0, 1, 2]
