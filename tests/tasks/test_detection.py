"""The task of detection, from outputs of a network to metrics and files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.data.transforms import augment
from jaxdistill.losses import boxes as boxes_lib
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import detectors
from jaxdistill.study import stablehlo
from jaxdistill.tasks import coco_results, detection
from jaxdistill.tasks.detection import assignment, average_precision

SIZE = (32, 48)
CLASSES = 3
ANCHORS = [
  np.asarray(
    detectors.anchors(
      h, w, s, size=2 * s, scales=(1.0,), ratios=(0.5, 1.0, 2.0)
    )
  )
  for h, w, s in ((4, 6, 8), (2, 3, 16))
]
ALL = np.concatenate(ANCHORS)
# Two objects, then none, then a crowd beside an object.
BOXES = np.zeros((3, 2, 4), np.float32)
BOXES[0] = (0, 0, 16, 16), (8, 20, 30, 48)
BOXES[2] = (4, 4, 30, 20), (0, 24, 20, 40)
LABELS = np.array([[0, 2], [-1, -1], [1, 0]], np.int32)
CROWD = np.array([[0, 0], [0, 0], [0, 1]], bool)
BATCH = {
  'image': np.zeros((3, *SIZE, 3), np.float32),
  'boxes': BOXES,
  'classes': LABELS,
  'crowd': CROWD,
}


def outputs(logits, offsets):
  anchors = {
    f'head.anchors{i}': np.broadcast_to(x, (len(logits), *x.shape))
    for i, x in enumerate(ANCHORS, start=3)
  }
  both = {'head': logits, 'head.boxes': offsets, **anchors}
  return jax.tree.map(jnp.asarray, both)


def random_outputs(seed=0):
  rng = np.random.default_rng(seed)
  return outputs(
    rng.normal(size=(3, len(ALL), CLASSES)).astype(np.float32),
    0.3 * rng.normal(size=(3, len(ALL), 4)).astype(np.float32),
  )


def assigned(i):
  is_box = (LABELS[i] >= 0) & ~CROWD[i]
  return np.asarray(assignment.assign(jnp.asarray(ALL), BOXES[i], is_box))


def perfect_outputs():
  """Outputs that find every object, the crowd aside."""
  logits = np.full((3, len(ALL), CLASSES), -9.0, np.float32)
  offsets = np.zeros((3, len(ALL), 4), np.float32)
  for i in range(3):
    for anchor, box in enumerate(assigned(i)):
      if box >= 0:
        logits[i, anchor, LABELS[i, box]] = 9.0
        offsets[i, anchor] = boxes_lib.encode(
          jnp.asarray(BOXES[i, box]), jnp.asarray(ALL[anchor])
        )
  return outputs(logits, offsets)


@functools.cache
def statistics(**options):
  task = detection(**options)
  return task, jax.jit(task.statistics)


def loss_in_numpy(found, i):
  """(loss of the classes, smooth L1 of the offsets) of one image."""
  logits, offsets = (np.asarray(found[k][i]) for k in ('head', 'head.boxes'))
  p = 1 / (1 + np.exp(-logits))
  class_loss = box_loss = 0.0
  rows = assigned(i)
  for anchor, box in enumerate(rows):
    if box == assignment.UNDECIDED:
      continue
    for k in range(CLASSES):
      if box >= 0 and LABELS[i, box] == k:
        q, weight = p[anchor, k], 0.25
      else:
        q, weight = 1 - p[anchor, k], 0.75
      class_loss -= weight * (1 - q) ** 2 * np.log(q)
    if box >= 0:
      target = boxes_lib.encode(
        jnp.asarray(BOXES[i, box]), jnp.asarray(ALL[anchor])
      )
      error = np.abs(offsets[anchor] - target)
      box_loss += np.where(error < 1 / 9, 4.5 * error**2, error - 1 / 18).sum()
  count = max(1, (rows >= 0).sum())
  return class_loss / count, box_loss / count


def test_the_losses_are_those_of_numpy():
  found = random_outputs()
  rows = statistics()[1](found, BATCH)
  for i in range(3):
    class_loss, box_loss = loss_in_numpy(found, i)
    assert float(rows['class_loss'][i]) == pytest.approx(class_loss, rel=1e-4)
    assert float(rows['box_loss'][i]) == pytest.approx(box_loss, rel=1e-4)
  np.testing.assert_allclose(
    rows['loss'], rows['class_loss'] + rows['box_loss'], rtol=1e-6
  )


def test_objects_that_are_all_found_have_full_precision():
  task, function = statistics()
  rows = jax.device_get(function(perfect_outputs(), BATCH))
  metrics = task.summarize(rows)
  assert (metrics['ap'], metrics['ap50'], metrics['ap75']) == (1, 1, 1)
  assert metrics['box_loss'] < 1e-6
  found = rows['detections'][0]
  np.testing.assert_array_equal(found[2:, 5], -1)
  order = np.argsort(found[:2, 5])
  np.testing.assert_allclose(found[:2, :4][order], BOXES[0], atol=1e-3)
  assert task.agreement(rows['detections'], rows['detections']) == 1


def objects_in_numpy(found, i, size):
  """(box, score, class) of the objects, the best ones first."""
  logits, offsets = (
    np.asarray(found[k][i], float) for k in ('head', 'head.boxes')
  )
  sides = ALL[:, 2:] - ALL[:, :2]
  centres = (ALL[:, 2:] + ALL[:, :2]) / 2 + offsets[:, :2] * sides
  halves = sides * np.exp(offsets[:, 2:]) / 2
  boxes = np.concatenate([centres - halves, centres + halves], axis=1)
  boxes = np.clip(boxes, 0, (*size, *size))
  scores = 1 / (1 + np.exp(-logits))
  kept = []
  for place in np.argsort(-scores, axis=None, kind='stable'):
    anchor, label = divmod(place, CLASSES)
    same = np.array([row[:4] for row in kept if row[5] == label])
    overlaps = average_precision.overlaps(
      boxes[anchor : anchor + 1], same.reshape(-1, 4), np.zeros(len(same), bool)
    )
    if scores[anchor, label] >= 0.05 and (overlaps <= 0.5).all():
      kept.append((*boxes[anchor], scores[anchor, label], label))
  return np.array(kept[:100])


@pytest.mark.parametrize('padded', [False, True])
def test_predictions_end_where_the_image_ends(padded):
  found = random_outputs()
  # The stride of the finest map does not divide the size of the images.
  batch = {'image': np.zeros((3, 30, 45, 3), np.float32)}
  sizes = [(30, 45)] * 3
  if padded:
    sizes = [(30, 20.5), (17, 45), (30, 45)]
    batch['extent'] = np.float32(sizes)
  predicted = np.asarray(jax.jit(detection().predict)(found, batch))
  for i, size in enumerate(sizes):
    expected = objects_in_numpy(found, i, size)
    np.testing.assert_allclose(
      predicted[i, : len(expected)], expected, rtol=1e-3, atol=1e-3
    )
    assert (expected[:, 2:4] == size).any()  # some boxes have been cut


def test_giou_is_the_distance_of_boxes_instead_of_offsets():
  task, function = statistics(box_loss='giou', box_weight=2.0)
  found = random_outputs()
  rows = function(found, BATCH)
  np.testing.assert_allclose(
    rows['loss'], rows['class_loss'] + 2 * rows['box_loss'], rtol=1e-6
  )
  chosen = assigned(0)
  decoded = boxes_lib.decode(found['head.boxes'][0], jnp.asarray(ALL))
  losses = [
    jd.losses.generalized_iou_loss(decoded[a], jnp.asarray(BOXES[0, b]))
    for a, b in enumerate(chosen)
    if b >= 0
  ]
  assert float(rows['box_loss'][0]) == pytest.approx(np.mean(losses), rel=1e-4)
  gradient = jax.grad(
    lambda x: task.loss({**found, 'head.boxes': x}, BATCH).sum()
  )
  assert np.isfinite(gradient(found['head.boxes'])).all()


def test_objects_agree_if_class_and_place_agree():
  rows = np.zeros((2, 3, 6))
  rows[..., 5] = -1
  rows[0, 0] = 0, 0, 10, 10, 0.9, 1
  rows[0, 1] = 0, 0, 10, 10, 0.8, 2
  other = rows.copy()
  other[0, 0, :4] = 0, 0, 10, 18  # overlaps by more than half
  other[0, 1, 5] = 0
  agreement = detection().agreement
  assert agreement(rows, rows) == 1
  assert agreement(rows, other) == 0.5
  assert agreement(rows[1:], rows[1:]) == 1
  assert agreement(rows, np.flip(rows, 0)) == 0


def tiny(num_classes=CLASSES):
  stages = [
    jd.Stage('stem', layers.ConvUnit(2, stride=2)),
    *(jd.Stage(f'group{i}', layers.ConvUnit(2, stride=2)) for i in (1, 2, 3)),
    jd.Stage('pool', layers.Pool()),
  ]
  return detectors.retinanet(
    jd.Network(tuple(stages)), num_classes=num_classes, width=2, depth=0
  )


def test_a_program_gives_boxes_scores_and_classes_of_raw_images():
  network = tiny()
  image = {'image': jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)}
  variables = graph.init(network, jax.random.key(0), image)
  task = detection(least_score=0.0)
  program = stablehlo.to_stablehlo(
    Model(network, variables),
    (*SIZE, 3),
    preprocess=augment.standardize((100.0,) * 3, (50.0,) * 3),
    final=task.final,
    platforms=('cpu',),
  )
  exported = jax.export.deserialize(bytearray(program))
  raw = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
  found = jax.device_get(exported.call(raw))
  assert found['boxes'].shape == (2, 100, 4)
  assert found['scores'].shape == found['classes'].shape == (2, 100)
  limit = (*SIZE, *SIZE)
  assert (found['boxes'] >= 0).all() and (found['boxes'] <= limit).all()
  assert (np.diff(found['scores']) <= 0).all() and found['scores'].max() > 0
  assert {*np.unique(found['classes'])} <= {-1, 0, 1, 2}


def dataset(**changes):
  columns = {
    'image': np.zeros((6, *SIZE, 3), np.uint8),
    'boxes': np.tile(BOXES, (2, 1, 1)),
    'classes': np.tile(LABELS, (2, 1)),
  } | changes
  return jd.data.from_columns(
    columns, columns, num_classes=CLASSES, validation=2
  )


def changed_box(*box):
  boxes = np.tile(BOXES, (2, 1, 1))
  boxes[:, 0] = box
  return {'boxes': boxes}


@pytest.mark.parametrize(
  'changes, words',
  [
    (changed_box(10, 0, 5, 20), r'top <= bottom .* got \[10.0, 0.0, 5.0, 20'),
    (changed_box(0, 10, 20, 5), 'left <= right'),
    (changed_box(0, 0, 33, 20), r'inside images of 32x48, got \[0.0, 0.0, 33'),
    (changed_box(-1, 0, 3, 20), 'inside images'),
    (changed_box(np.nan, 0, 3, 20), 'inside images'),
    ({'classes': np.full((6, 2), 3)}, 'from 0 to 2, or -1 for no box.* got 3'),
    ({'classes': np.full((6, 2), -2)}, 'from 0 to 2, .* got -2'),
    ({'classes': np.zeros((6, 2))}, 'expected integers .* got float64'),
    ({'boxes': np.zeros((6, 3, 4), np.float32)}, r'\[4, 2, 4\], .* \[4, 3, 4'),
    ({'crowd': np.zeros((6, 3), bool)}, r'crowd: expected \[4, 2\]'),
    ({'extent': np.ones(6)}, r'extent: expected \[N, 2\], .* got \[4\]'),
    (
      {'extent': np.tile([32.0, 49.0], (6, 1))},
      r'extent: .* inside images of 32x48, got \[32.0, 49.0\]',
    ),
  ],
)
def test_boxes_that_do_not_suit_images_and_classes_are_refused(changes, words):
  with pytest.raises(UsageError, match=words):
    jd.recipe(dataset(**changes), detection(), epochs=1, batch_size=2)


def test_classes_without_a_box_in_training_are_named():
  notes = detection().notes
  assert notes(dataset(classes=np.tile([[0, 1], [2, -1]], (3, 1)))) == ()
  assert notes(dataset(classes=np.tile([0, -1], (6, 1)))) == (
    'data: the training images have no box of 2 of the 3 classes: 1, 2',
  )


def test_images_without_boxes_are_allowed():
  classes = np.full((6, 2), -1)
  recipe = jd.recipe(
    dataset(classes=classes), detection(), epochs=1, batch_size=2
  )
  assert recipe.example['boxes'].shape == (2, 2, 4)


@pytest.mark.parametrize(
  'found, words',
  [
    (jnp.zeros((1, 5)), "such as 'retinanet', got a single"),
    ({'head': jnp.zeros((1, 5)), 'aux': jnp.zeros(1)}, 'got aux, head'),
    ({'head': jnp.zeros((1, 5)), 'head.boxes': jnp.zeros(1)}, 'head.boxes'),
  ],
)
def test_outputs_of_other_networks_are_refused(found, words):
  with pytest.raises(UsageError, match=words):
    detection().loss(found, BATCH)


@pytest.mark.parametrize(
  'options, words',
  [
    ({'score': 'map'}, "score 'map'; did you mean 'ap'"),
    ({'box_loss': 'l1'}, 'box_loss'),
    ({'overlap': 1.5}, 'overlap'),
    ({'least_score': 1.0}, 'least_score'),
    ({'box_weight': -1.0}, 'box_weight'),
  ],
)
def test_options_that_do_not_exist_are_refused(options, words):
  with pytest.raises(UsageError, match=words):
    detection(**options)


def test_results_of_coco_have_boxes_of_the_original_images():
  rows = np.zeros((2, 3, 6))
  rows[..., 5] = -1
  rows[0, 0] = 2, 4, 10, 20, 0.75, 1
  split = {'image_id': np.array([139, 7]), 'scale': np.array([2.0, 1.0])}
  assert coco_results(rows, split, category_ids=(3, 90)) == [
    {
      'image_id': 139,
      'category_id': 90,
      'bbox': [2.0, 1.0, 8.0, 4.0],
      'score': 0.75,
    }
  ]
  with pytest.raises(UsageError, match='category_ids'):
    coco_results(rows, split, category_ids=(3,))
