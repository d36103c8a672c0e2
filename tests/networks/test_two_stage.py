"""Detectors in two stages: stages, RoIAlign and proposals, against NumPy."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import description, graph
from jaxdistill.networks.layers import proposals, roi_align
from jaxdistill.networks.surgery import detectors, two_stage

FIXTURE = pathlib.Path(__file__).parent / 'box_fixtures/roi_align.npz'
SIZES = {2: (18, 25), 3: (9, 13), 4: (5, 7), 5: (3, 4), 6: (2, 2)}
COUNT = 3 * sum(h * w for h, w in SIZES.values())


def resnet(**arguments):
  return jd.networks.create(
    'imagenet_resnet',
    num_classes=10,
    stem_width=2,
    widths=(2, 2, 4, 4),
    **arguments,
  )


@pytest.fixture(scope='module')
def network():
  return two_stage.faster_rcnn(
    resnet(), num_classes=5, width=6, head_width=4, count=7, candidates=9
  )


def shapes(network, **more):
  image = jax.ShapeDtypeStruct((2, 72, 100, 3), jnp.float32)
  return graph.shapes(network, {'image': image, **more})


def test_each_level_of_the_pyramid_is_a_stage(network):
  found = shapes(network)  # no multiple of the strides
  for k, size in SIZES.items():
    assert found[f'p{k}'].shape == (2, *size, 6)
    anchors = found[f'rpn.anchors{k}'].shape
    assert anchors == (2, 3 * size[0] * size[1], 4)
  output = graph.output(network, found)
  assert output['head'].shape == (2, 7, 6)
  assert output['head.boxes'].shape == (2, 7, 5, 4)
  assert output['rpn'].shape == (2, COUNT)
  assert output['rpn.boxes'].shape == (2, COUNT, 4)
  assert output['proposals'].shape == (2, 7, 4)
  assert found['regions'].shape == (2, 7, 7, 7, 6)
  assert graph.main_output(network) == 'head'


def test_the_true_boxes_follow_the_proposals_if_they_are_given(network):
  true_boxes = jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)
  found = shapes(network, true_boxes=true_boxes)
  assert found['proposals'].shape == (2, 10, 4)
  assert found['head'].shape == (2, 10, 6)
  stage = two_stage.Proposals(count=2, candidates=4)
  logits, offsets, anchors = random_levels(0)
  read = [
    np.concatenate(logits)[None],
    np.concatenate(offsets)[None],
    *(x[None] for x in anchors),
  ]
  truth = np.float32([[[1, 2, 3, 4]]])

  @jax.jit
  def both(key):
    alone = stage.apply({}, *read, train=True)
    return alone, stage.apply(
      {}, *read, truth, train=True, rngs={'dropout': key}
    )

  alone, together = both(jax.random.key(0))
  np.testing.assert_array_equal(together[''][:, :2], alone[''])
  np.testing.assert_array_equal(together[''][:, 2:], truth)
  assert int(alone['.draw'][0]) == 0 != int(together['.draw'][0])


def test_a_detector_is_rebuilt_from_its_description(network):
  text = json.dumps(description.to_description(network))
  assert description.from_description(json.loads(text)) == network


@pytest.mark.parametrize('optional', [3, [3]])
def test_optional_inputs_of_a_description_are_names(network, optional):
  entries = description.to_description(network)
  stage = next(x for x in entries['stages'] if x['name'] == 'proposals')
  stage['optional'] = optional
  with pytest.raises(UsageError, match='network: '):
    description.from_description(entries)


def test_strides_and_sides_are_measured():
  ordinary, unpooled = (
    two_stage.faster_rcnn(x, num_classes=2, width=2)
    for x in (resnet(), resnet(stem_pool=False))
  )
  for detector, stride in ((ordinary, 4), (unpooled, 2)):
    modules = {s.name: s.module for s in detector.stages}
    assert modules['rpn'].stride == modules['regions'].stride == stride
    assert modules['regions'].canonical == 56 * stride


def test_the_parameters_are_those_of_torchvision():
  classes = 90
  network = two_stage.faster_rcnn(
    jd.networks.create('resnet50', num_classes=1), num_classes=classes
  )
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  found = graph.count_parameters(
    graph.variable_shapes(network, {'image': image})
  )
  # In torchvision, batch norms have no parameters and the background has a box.
  assert found == 41_755_286 + 53_120 - 4 * 1025


def test_four_groups_must_halve_the_resolution():
  with pytest.raises(UsageError, match='last 4 groups each halve'):
    two_stage.faster_rcnn(resnet(strides=(1, 2, 2, 1)), num_classes=2)


@pytest.mark.parametrize(
  'keys',
  [
    *({'count': 0}, {'candidates': 0}, {'head_width': 0}, {'overlap': 2.0}),
    *({'ratios': ()}, {'ratios': (0.0,)}),
  ],
)
def test_numbers_out_of_range_are_refused(keys):
  with pytest.raises(UsageError, match=next(iter(keys))):
    two_stage.faster_rcnn(resnet(), num_classes=2, **keys)


# RoIAlign.


def interpolated(x, row, column):
  """A map `[H, W, C]` at a point, in places."""
  height, width, _ = x.shape
  row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
  total = np.zeros(x.shape[2])
  for i in range(height):
    for j in range(width):
      weight = max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j))
      total += weight * x[i, j]
  return total


def aligned_in_numpy(maps, box, canonical, size=2):
  area = np.prod(np.maximum(box[2:] - box[:2], 0))
  level = 0 if area == 0 else int(np.floor(2 + np.log2(area**0.5 / canonical)))
  level = min(max(level, 0), len(maps) - 1)
  stride = 4 * 2**level
  result = np.zeros((size, size, maps[0].shape[-1]))
  for i, j, a, b in np.ndindex(size, size, 2, 2):
    at = [
      (box[k] + (box[k + 2] - box[k]) * (2 * part + point + 0.5) / (2 * size))
      / stride
      - 0.5
      for k, part, point in ((0, i, a), (1, j, b))
    ]
    result[i, j] += interpolated(maps[level], *at) / 4
  return result


def test_roi_align_reads_what_numpy_reads():
  rng = np.random.default_rng(1)
  maps = [
    rng.normal(size=(16 >> i, 24 >> i, 2)).astype(np.float32) for i in range(3)
  ]
  corner = rng.uniform(-20, 90, (20, 2))
  boxes = np.concatenate([corner, corner + rng.uniform(0, 60, (20, 2))], 1)
  boxes[0], boxes[1] = (0, 0, 64, 96), (3, 3, 3, 9)
  align = functools.partial(
    roi_align.roi_align, stride=4, canonical=30.0, size=2
  )
  found = jax.jit(align)(maps, boxes.astype(np.float32))
  expected = [aligned_in_numpy(maps, box, 30.0) for box in boxes]
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_roi_align_is_that_of_torchvision():
  data = np.load(FIXTURE)
  maps = [data[f'map{i}'] for i in range(4)]
  align = functools.partial(roi_align.roi_align, stride=4, canonical=28.0)
  found = jax.jit(align)(maps, data['boxes'])
  np.testing.assert_allclose(found, data['expected'], rtol=1e-3, atol=1e-4)
  assert {*data['levels']} == {0, 1, 2, 3}


# Proposals.


def random_levels(seed):
  """(logits, offsets, anchors) of two or more levels on a coarse grid.

  Many scores are equal, boxes lie at the border, and some have no area.
  """
  rng = np.random.default_rng(seed)
  anchors = [
    np.asarray(
      detectors.anchors(
        8 >> i, 8 >> i, 4 << i, size=8 << i, scales=(1.0,), ratios=(1.0,)
      )
    )
    for i in range(4)
  ]
  anchors.append(anchors[-1])
  logits = [np.round(rng.normal(size=len(x)), 1).astype('f') for x in anchors]
  offsets = []
  for x in anchors:
    shift = rng.choice([-4.0, -0.25, 0.0, 0.25, 4.0], (len(x), 2))
    grown = np.concatenate([shift, np.zeros((len(x), 2))], axis=1)
    offsets.append(grown.astype(np.float32))
  if seed == 0:
    for x in offsets[1:]:
      x[:, :2] = 100.0  # nothing is left of these levels
  return logits, offsets, anchors


def overlap(box, other):
  sides = [
    max(0.0, min(box[i + 2], other[i + 2]) - max(box[i], other[i]))
    for i in (0, 1)
  ]
  areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
  shared = sides[0] * sides[1]
  return shared / (areas - shared) if areas > shared else 0.0


def proposed_in_numpy(logits, offsets, anchors, count, candidates, limit):
  found = []
  for scores, offset, anchor in zip(logits, offsets, anchors):
    kept = []
    for row in np.argsort(-scores, kind='stable')[:candidates]:
      sides = anchor[row, 2:] - anchor[row, :2]
      box = anchor[row] + np.tile(offset[row, :2] * sides, 2)
      box = np.clip(box, 0, 32)
      if (box[:2] < box[2:]).all() and all(
        overlap(box, other) <= limit for _, other in kept
      ):
        kept.append((scores[row], box))
    found += kept
  found = sorted(found, key=lambda pair: -pair[0])[:count]  # it is stable
  result = np.zeros((count, 4))
  for i, (_, box) in enumerate(found):
    result[i] = box
  return result


@functools.cache
def propose():
  return jax.jit(
    functools.partial(proposals.propose, count=30, candidates=20, overlap=0.3)
  )


@pytest.mark.parametrize('seed', range(4))
def test_proposals_are_those_of_numpy(seed):
  levels = random_levels(seed)
  found = propose()(*levels)
  expected = proposed_in_numpy(*levels, 30, 20, 0.3)
  np.testing.assert_array_equal(found, expected)
  assert expected.any() and (seed or not expected[-1].any())


def test_an_image_in_which_all_boxes_are_outside_has_no_proposals():
  logits, offsets, anchors = random_levels(1)
  found = propose()(logits, [np.full_like(x, 50) for x in offsets], anchors)
  np.testing.assert_array_equal(found, np.zeros((30, 4)))


@pytest.mark.parametrize('seed', range(4))
def test_suppression_keeps_a_box_whose_rival_was_itself_dropped(seed):
  rng = np.random.default_rng(seed)
  corner = rng.integers(0, 12, (40, 2)) * 2
  boxes = np.concatenate([corner, corner + 8], axis=1).astype(np.float32)
  is_box = rng.random(40) < 0.9
  expected = []
  for i in range(40):
    if is_box[i] and all(overlap(boxes[i], boxes[j]) <= 0.3 for j in expected):
      expected.append(i)
  found = jax.jit(functools.partial(proposals.kept, overlap=0.3))(boxes, is_box)
  np.testing.assert_array_equal(np.flatnonzero(found), expected)
