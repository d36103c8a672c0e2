"""The average precisions of COCO."""

import sys

import numpy as np
import pytest

from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.tasks import detection
from jaxdistill.tasks.detection import average_precision, pycoco
from jaxdistill.tasks.detection.average_precision import Found, Truth

NAMES = ('ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large')


def truth(boxes, classes, *, crowd=None, areas=None, scale=1.0):
  boxes = np.asarray(boxes, float).reshape(-1, 4)
  return Truth(
    boxes,
    np.asarray(classes, int),
    np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd),
    average_precision.areas(boxes) if areas is None else np.asarray(areas),
    scale,
  )


def found(boxes, scores, classes):
  boxes = np.asarray(boxes, float).reshape(-1, 4)
  return Found(boxes, np.asarray(scores), np.asarray(classes, int))


def precisions(*images):
  return average_precision.average_precisions(iter(images))


BOX = (0, 0, 40, 40)
OTHER = (50, 50, 90, 90)


def test_objects_that_are_all_found_have_full_precision():
  metrics = precisions(
    (found([BOX, OTHER], [0.9, 0.8], [0, 1]), truth([OTHER, BOX], [1, 0]))
  )
  names = ('ap', 'ap50', 'ap75', 'ap_medium', 'ap/0', 'ap/1')
  assert metrics == dict.fromkeys(names, 1)


def test_each_class_with_objects_has_its_own_precision():
  metrics = precisions(
    (found([BOX, OTHER], [0.9, 0.8], [2, 1]), truth([BOX, BOX], [2, 0]))
  )
  assert (metrics['ap/2'], metrics['ap/0']) == (1, 0)
  assert metrics['ap'] == 0.5 and 'ap/1' not in metrics


def test_an_overlap_of_two_thirds_counts_at_four_of_ten_thresholds():
  half = (0, 0, 40, 60)  # the intersection is 2/3 of the union
  metrics = precisions((found([BOX], [0.9], [0]), truth([half], [0])))
  assert metrics['ap50'] == 1 and metrics['ap75'] == 0
  assert metrics['ap'] == pytest.approx(0.4)


def test_a_wrong_detection_before_the_right_one_halves_the_precision():
  image = (found([OTHER, BOX], [0.9, 0.8], [0, 0]), truth([BOX], [0]))
  assert precisions(image)['ap50'] == pytest.approx(0.5)


def test_a_second_detection_of_an_object_is_wrong():
  shifted = (0, 2, 40, 42)
  image = (
    found([BOX, shifted, OTHER], [0.9, 0.8, 0.7], [0, 0, 0]),
    truth([BOX, OTHER], [0, 0]),
  )
  # Recall 1/2 at precision 1, then recall 1 at 2/3: 51 and 50 of 101 places.
  expected = (51 + 50 * 2 / 3) / 101
  assert precisions(image)['ap50'] == pytest.approx(expected)


def test_an_object_that_is_missed_limits_the_recall():
  image = (found([BOX], [0.9], [0]), truth([BOX, OTHER], [0, 0]))
  assert precisions(image)['ap50'] == pytest.approx(51 / 101)


def test_detections_in_a_crowd_do_not_count():
  crowd = (50, 50, 90, 90)
  parts = [(50, 50, 60, 60), (60, 60, 90, 90), (50, 50, 90, 90)]
  image = (
    found([*parts, BOX], [0.9, 0.8, 0.7, 0.6], [0] * 4),
    truth([crowd, BOX], [0, 0], crowd=[True, False]),
  )
  assert precisions(image)['ap50'] == 1


def test_sizes_are_those_of_the_original_images():
  image = (found([BOX], [0.9], [0]), truth([BOX], [0], areas=[30], scale=8.0))
  metrics = precisions(image)
  assert metrics['ap_small'] == 1 and 'ap_medium' not in metrics


@pytest.mark.parametrize(
  'image',
  [
    (found([], [], []), truth([], [])),
    (found([BOX], [0.9], [0]), truth([], [])),
    (found([BOX], [0.9], [-1]), truth([BOX], [-1])),
  ],
)
def test_without_any_objects_the_precision_is_zero(image):
  assert precisions(image) == {'ap': 0, 'ap50': 0, 'ap75': 0}


def test_classes_without_objects_do_not_count():
  image = (found([BOX, OTHER], [0.9, 0.8], [0, 1]), truth([BOX], [0]))
  assert precisions(image)['ap'] == 1


def random_images(seed, count=10, num_classes=3):
  """Images with crowds, boxes without an area, equal scores and equal boxes."""
  rng = np.random.default_rng(seed)
  images = []
  for _ in range(count):
    corner = rng.integers(0, 280, (rng.integers(0, 9), 2))
    sides = rng.choice([0, 8, 20, 40, 100, 150], corner.shape)
    true = np.concatenate([corner, corner + sides], 1).astype(float)
    classes = rng.integers(0, num_classes, len(true))
    rows = rng.integers(0, len(true), rng.integers(0, 15) if len(true) else 0)
    boxes = true[rows] + rng.integers(-6, 7, (len(rows), 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    labels = np.where(rng.random(len(rows)) < 0.8, classes[rows], 0)
    scores = -np.sort(-np.round(rng.random(len(rows)), 1))
    areas = average_precision.areas(true) * rng.choice([0.5, 1], len(true))
    crowd = rng.random(len(true)) < 0.2
    images.append(
      (
        found(boxes, scores, labels),
        truth(true, classes, crowd=crowd, areas=areas),
      )
    )
  return images


@pytest.mark.parametrize('seed', range(4))
def test_the_numbers_are_those_of_pycocotools(seed):
  pytest.importorskip('pycocotools')
  images = random_images(seed)
  expected = pycoco.average_precisions(iter(images))
  assert precisions(*images) == pytest.approx(expected, abs=1e-9)


def test_pycocotools_reads_sizes_and_rows_without_an_object_alike():
  pytest.importorskip('pycocotools')
  images = [
    (
      found([BOX, OTHER, BOX], [0.9, 0.8, 0.0], [0, 1, -1]),
      truth([BOX, OTHER], [0, -1], areas=[30, 0], scale=8.0),
    ),
    (found([], [], []), truth([], [])),
  ]
  expected = pycoco.average_precisions(iter(images))
  assert precisions(*images) == pytest.approx(expected)
  for image in (*images[1:], (found([], [], []), images[0][1])):
    assert precisions(image) == pytest.approx(
      pycoco.average_precisions(iter([image]))
    )


def test_without_pycocotools_the_task_says_how_to_install_it(monkeypatch):
  for name in ('pycocotools', 'pycocotools.cocoeval'):
    monkeypatch.setitem(sys.modules, name, None)
  message = (
    "^detection with evaluator='pycocotools' needs pycocotools: pip "
    r"install 'jaxdistill\[detection\]'$"
  )
  with pytest.raises(UsageError, match=message):
    detection(evaluator='pycocotools')
  config = {
    **{'data': {'name': 'digits'}, 'student': {'name': 'resnet8'}},
    'task': {'name': 'detection', 'evaluator': 'pycocotools'},
    'methods': {'alone': {'name': 'supervised'}},
  }
  with pytest.raises(UsageError, match='needs pycocotools: pip install'):
    study.plan(config)
  assert detection().name == 'detection'


# What pycocotools 2.0.11 gives for the images above.
RECORDED = {
  0: (0.068032471, 0.149220145, 0.048749875, 0.044047542, 0.285314285, 0.4),
  1: (0.080846709, 0.202887527, 0.048303856, 0.067212138, 0.17420242, 0.9),
  2: (0.072515302, 0.254702302, 0.054365437, 0.03623029, 0.23092586, 0.8),
  3: (0.057274365, 0.114650099, 0.058660682, 0.024575849, 0.163811881, 0.85),
}


@pytest.mark.parametrize('seed', RECORDED)
def test_the_numbers_are_those_that_pycocotools_gave(seed):
  metrics = precisions(*random_images(seed))
  np.testing.assert_allclose(
    [metrics.get(name, -1) for name in NAMES], RECORDED[seed], atol=1e-6
  )
