"""Detection in two stages: sampling, losses, objects and export."""

import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import detectors
from jaxdistill.study import stablehlo
from jaxdistill.tasks import two_stage_detection
from jaxdistill.tasks.detection import sampling

SIZE = (32, 48)
CLASSES = 3
ANCHORS = [
  np.asarray(
    detectors.anchors(h, w, s, size=2 * s, scales=(1.0,), ratios=(0.5, 1.0))
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
REGIONS = 12
RUN = runpy.run_path(str(pathlib.Path(__file__).with_name('detector_run.py')))


@functools.cache
def sample():
  draw = functools.partial(sampling.sample, count=8, share=0.25)
  return jax.jit(jax.vmap(draw, (0, None, None)))


@pytest.mark.parametrize(
  'positives, negatives, expected',
  [
    (5, 20, (2, 6)),
    (1, 20, (1, 7)),
    (0, 20, (0, 8)),
    (9, 3, (2, 3)),
    (0, 0, (0, 0)),
  ],
)
def test_a_quarter_of_the_rows_that_are_drawn_are_positives(
  positives, negatives, expected
):
  is_positive, is_negative = np.zeros((2, 40), bool)
  is_positive[:positives] = is_negative[positives : positives + negatives] = (
    True
  )
  keys = jax.random.split(jax.random.key(0), 200)
  drawn = np.asarray(sample()(keys, is_positive, is_negative))
  for mask, eligible, count in zip(
    (is_positive, is_negative), (positives, negatives), expected
  ):
    assert (drawn[:, mask].sum(1) == count).all()
    if 0 < count < eligible:  # each row is drawn equally often
      share = drawn[:, mask].mean(0)
      np.testing.assert_allclose(share, count / eligible, atol=0.15)
  assert not drawn[:, ~(is_positive | is_negative)].any()


def random_outputs(seed=0):
  rng = np.random.default_rng(seed)
  regions = np.zeros((3, REGIONS, 4), np.float32)
  corner = rng.uniform(0, 24, (3, REGIONS - 4, 2))
  side = rng.uniform(4, 8, (3, REGIONS - 4, 2))
  regions[:, :-4] = np.concatenate([corner, corner + side], axis=2)
  regions[:, :2] = BOXES + np.float32([1, 0, 1, 0])  # near the objects
  regions[1, :2] = 0
  normal = functools.partial(rng.normal, 0)
  outputs = {
    'head': normal(1, (3, REGIONS, CLASSES + 1)),
    'head.boxes': normal(1, (3, REGIONS, CLASSES, 4)),
    'rpn': normal(1, (3, len(ALL))),
    'rpn.boxes': normal(0.3, (3, len(ALL), 4)),
    'proposals': regions,
  }
  outputs = {k: v.astype(np.float32) for k, v in outputs.items()}
  for i, x in enumerate(ANCHORS, start=2):
    outputs[f'rpn.anchors{i}'] = np.tile(x, (3, 1, 1))
  outputs['proposals.draw'] = np.arange(3, dtype=np.uint32)
  return jax.tree.map(jnp.asarray, outputs)


def overlap(box, other):
  sides = [
    max(0.0, min(box[i + 2], other[i + 2]) - max(box[i], other[i]))
    for i in (0, 1)
  ]
  areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
  shared = sides[0] * sides[1]
  return shared and shared / (areas - shared)  # no area, no overlap


def table(i, rows):
  """The overlaps of rows with the boxes of image i, 0 for none and crowds."""
  is_box = (LABELS[i] >= 0) & ~CROWD[i]
  return np.array(
    [
      [overlap(row, box) * ok for box, ok in zip(BOXES[i], is_box)]
      for row in rows.astype(float)
    ]
  )


def encoded(box, anchor, units=(1, 1, 1, 1)):
  sides, anchor_sides = box[2:] - box[:2], anchor[2:] - anchor[:2]
  shift = (box[2:] + box[:2] - anchor[2:] - anchor[:2]) / 2 / anchor_sides
  offsets = np.concatenate([shift, np.log(sides / anchor_sides)])
  return offsets / np.array(units)


def smooth_l1(error, beta):
  error = np.abs(error)
  return np.where(error < beta, error**2 / 2 / beta, error - beta / 2).sum()


def losses_in_numpy(outputs, i):
  """The four losses of an image if all anchors and regions are drawn."""
  outputs = {k: np.asarray(v[i], float) for k, v in outputs.items()}
  overlaps = table(i, ALL)
  count = class_loss = box_loss = 0
  for a, row in enumerate(overlaps):
    is_best = ((row >= overlaps.max(0) - 1e-5) & (row > 0)).any()
    if row.max() >= 0.7 or is_best:
      best = np.where(row >= overlaps.max(0) - 1e-5, row, 0)
      box = BOXES[i, (best if is_best else row).argmax()]
      class_loss += np.log1p(np.exp(-outputs['rpn'][a]))
      error = outputs['rpn.boxes'][a] - encoded(box, ALL[a])
      box_loss += smooth_l1(error, 1 / 9)
    elif row.max() < 0.3:
      class_loss += np.log1p(np.exp(outputs['rpn'][a]))
    else:
      continue
    count += 1
  losses = {
    'rpn_class_loss': class_loss / count,
    'rpn_box_loss': box_loss / count,
  }
  regions = outputs['proposals']
  is_region = (regions[:, :2] < regions[:, 2:]).all(1)
  class_loss = box_loss = 0
  for n in np.flatnonzero(is_region):
    row = table(i, regions[n : n + 1])[0]
    label = LABELS[i, row.argmax()] if row.max() >= 0.5 else CLASSES
    p = np.exp(outputs['head'][n])
    class_loss -= np.log(p[label] / p.sum())
    if label < CLASSES:
      target = encoded(BOXES[i, row.argmax()], regions[n], (0.1, 0.1, 0.2, 0.2))
      box_loss += smooth_l1(outputs['head.boxes'][n, label] - target, 1.0)
  count = is_region.sum()
  return losses | {
    'class_loss': class_loss / count,
    'box_loss': box_loss / count,
  }


@functools.cache
def statistics(anchor_samples, region_samples):
  task = two_stage_detection(
    anchor_samples=anchor_samples, region_samples=region_samples
  )
  return task, jax.jit(task.statistics)


def test_the_losses_are_those_of_numpy():
  outputs = random_outputs()
  rows = statistics(4 * len(ALL), 8 * REGIONS)[1](outputs, BATCH)
  for i in range(3):
    expected = losses_in_numpy(outputs, i)
    for name, value in expected.items():
      assert float(rows[name][i]) == pytest.approx(value, rel=1e-4), (name, i)
    assert float(rows['loss'][i]) == pytest.approx(
      sum(expected.values()), rel=1e-4
    )
    assert bool(expected['box_loss']) == (i != 1)


def test_other_draws_choose_other_anchors_and_regions():
  outputs = random_outputs()
  task = two_stage_detection(anchor_samples=8, region_samples=4)
  function = jax.jit(lambda outputs: task.progress(outputs, BATCH))
  first, again = (function(outputs) for _ in range(2))
  draw = outputs['proposals.draw'] + 7
  other = function({**outputs, 'proposals.draw': draw})
  for name in ('rpn_class_loss', 'class_loss'):
    assert first[name] == again[name] != other[name]


def objects_in_numpy(outputs, i, size=SIZE, limit=0.5, least=0.05):
  """(box, score, class) of the objects, the best ones first."""
  outputs = {k: np.asarray(v[i], float) for k, v in outputs.items()}
  p = np.exp(outputs['head'])
  scores = p / p.sum(1, keepdims=True)
  found = []
  for n, region in enumerate(outputs['proposals']):
    for k in range(CLASSES):
      if (region[:2] < region[2:]).all() and scores[n, k] >= least:
        offsets = outputs['head.boxes'][n, k] * (0.1, 0.1, 0.2, 0.2)
        sides = region[2:] - region[:2]
        centre = (region[2:] + region[:2]) / 2 + offsets[:2] * sides
        half = sides * np.exp(offsets[2:]) / 2
        box = np.concatenate([centre - half, centre + half])
        found.append((*np.clip(box, 0, (*size, *size)), scores[n, k], k))
  kept = []
  for row in sorted(found, key=lambda row: -row[4]):
    if all(r[5] != row[5] or overlap(r, row) <= limit for r in kept):
      kept.append(row)
  return np.array(kept)


def test_the_objects_are_those_of_numpy():
  outputs = random_outputs(3)
  task, function = statistics(4 * len(ALL), 8 * REGIONS)
  rows = jax.device_get(function(outputs, BATCH))
  for i in range(3):
    expected = objects_in_numpy(outputs, i)
    found = rows['detections'][i]
    np.testing.assert_allclose(
      found[: len(expected)], expected, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_array_equal(found[len(expected) :, 5], -1)
  metrics = task.summarize(rows)
  assert {'ap50', 'rpn_box_loss', 'class_loss', 'loss'} <= {*metrics}


@pytest.mark.parametrize('padded', [False, True])
def test_predictions_end_where_the_image_ends(padded):
  outputs = random_outputs(3)
  batch = {'image': np.zeros((3, 18, 26, 3), np.float32)}
  sizes = [(18, 26)] * 3
  if padded:
    sizes = [(18, 12.5), (15, 26), (18, 26)]
    batch['extent'] = np.float32(sizes)
  predicted = np.asarray(jax.jit(two_stage_detection().predict)(outputs, batch))
  for i, size in enumerate(sizes):
    expected = objects_in_numpy(outputs, i, size)
    np.testing.assert_allclose(
      predicted[i, : len(expected)], expected, rtol=1e-3, atol=1e-3
    )
    assert (expected[:, 2:4] == size).any()  # some boxes have been cut


def test_training_shows_the_boxes_that_are_learned():
  shown = two_stage_detection().inputs(BATCH)['true_boxes']
  np.testing.assert_array_equal(shown[0], BOXES[0])
  np.testing.assert_array_equal(shown[1], 0)
  np.testing.assert_array_equal(shown[2], [BOXES[2, 0], (0, 0, 0, 0)])


def test_outputs_of_other_networks_are_refused():
  with pytest.raises(UsageError, match="such as 'faster_rcnn', got aux, head"):
    two_stage_detection().loss({'head': BOXES, 'aux': BOXES}, BATCH)
  with pytest.raises(UsageError, match='got a single output'):
    two_stage_detection().predict(BOXES, BATCH)


@pytest.mark.parametrize(
  'options',
  [
    {'score': 'map'},
    {'anchor_samples': 1},
    {'region_samples': 0},
    {'overlap': 2},
  ],
)
def test_options_that_do_not_exist_are_refused(options):
  with pytest.raises(UsageError, match=next(iter(options))):
    two_stage_detection(**options)


def test_a_program_gives_boxes_scores_and_classes_of_raw_images():
  image = {'image': jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}
  variables = graph.init(RUN['tiny'](), jax.random.key(0), image)
  task = two_stage_detection(least_score=0.0)
  program = stablehlo.to_stablehlo(
    Model(RUN['tiny'](), variables),
    (32, 32, 3),
    preprocess=augment.standardize((100.0,) * 3, (50.0,) * 3),
    final=task.final,
    platforms=('cpu',),
  )
  exported = jax.export.deserialize(bytearray(program))
  raw = RUN['DATA'].splits['test']['image'][:2]
  found = jax.device_get(exported.call(raw))
  assert found['boxes'].shape == (2, 100, 4)
  assert found['scores'].shape == found['classes'].shape == (2, 100)
  assert (found['boxes'] >= 0).all() and (found['boxes'] <= 32).all()
  assert (np.diff(found['scores']) <= 0).all() and found['scores'].max() > 0
  assert {*np.unique(found['classes'])} <= {-1, 0, 1}
