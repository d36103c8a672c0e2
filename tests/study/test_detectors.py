"""Studies of detectors: what does not fit is refused before training."""

import jax
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import detectors, two_stage

BACKBONE = {'name': 'resnet18', 'stem_width': 2, 'widths': (2, 2, 4, 4)}
RETINANET = {'name': 'retinanet', 'width': 4, 'depth': 0, 'network': BACKBONE}
FASTER_RCNN = {
  'name': 'faster_rcnn',
  'width': 4,
  'head_width': 4,
  'count': 4,
  'candidates': 4,
  'network': BACKBONE,
}


def saved(path, made, **options):
  """Saves a detector whose weights are all 0."""
  backbone = {k: v for k, v in BACKBONE.items() if k != 'name'}
  network = made(
    jd.networks.create('resnet18', num_classes=1, **backbone), **options
  )
  image = {'image': jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)}
  shapes = graph.variable_shapes(network, image)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  jd.save(path, jd.Model(network, zeros))
  return {'checkpoint': str(path)}


def plan(task, student, teacher=None, num_classes=2):
  columns = {
    'image': np.zeros((6, 64, 64, 3), np.uint8),
    'boxes': np.tile(np.float32([[0, 0, 20, 20]]), (6, 1, 1)),
    'classes': np.zeros((6, 1), np.int32),
  }
  data = jd.data.from_columns(
    columns, columns, num_classes=num_classes, validation=2
  )
  config = {
    'data': {'name': 'digits'},  # not read
    'task': {'name': task},
    'augment': {'name': 'none'},
    'student': student,
    'batch_size': 2,
    'epochs': 1,
    'methods': {'student alone': {'name': 'supervised'}},
  }
  if teacher is not None:
    config['teacher'] = teacher
  return study.plan(config, data)


@pytest.mark.parametrize(
  ('task', 'student', 'teacher', 'words'),
  [
    (
      'detection',
      FASTER_RCNN,
      None,
      "student: detection: .* 'retinanet', got .* 'two_stage_detection' suits",
    ),
    (
      'two_stage_detection',
      FASTER_RCNN,
      {**RETINANET, 'training': {'epochs': 1}},
      "teacher: two_stage_.* 'faster_rcnn', got .* 'detection' suits",
    ),
    ('detection', BACKBONE, None, 'student: .* got a single output$'),
  ],
)
def test_networks_with_other_outputs_are_refused(task, student, teacher, words):
  with pytest.raises(UsageError, match=words):
    plan(task, student, teacher)


def test_data_that_do_not_say_how_many_classes_there_are_are_refused():
  with pytest.raises(UsageError, match='data: expected num_classes or label_n'):
    plan('detection', RETINANET, num_classes=0)


def test_a_teacher_with_more_proposals_is_measured_like_its_student(tmp_path):
  options = {'width': 6, 'head_width': 4, 'candidates': 4}
  teacher = saved(
    tmp_path / 'more.safetensors',
    two_stage.faster_rcnn,
    num_classes=2,
    count=9,
    **options,
  )
  assert not plan('two_stage_detection', FASTER_RCNN, teacher).foreign_teacher
  teacher = saved(
    tmp_path / 'other.safetensors',
    two_stage.faster_rcnn,
    num_classes=3,
    **options,
  )
  assert plan('two_stage_detection', FASTER_RCNN, teacher).foreign_teacher


def test_a_detector_of_another_kind_teaches_but_is_not_measured(tmp_path):
  # Its scores have as many columns as those of the student, whose last one is
  # the background.
  teacher = saved(
    tmp_path / 't.safetensors',
    detectors.retinanet,
    num_classes=3,
    width=4,
    depth=0,
  )
  assert plan('two_stage_detection', FASTER_RCNN, teacher).foreign_teacher
