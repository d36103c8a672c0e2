"""RetinaNet's pyramid, head and losses are those of plain PyTorch.

tests/networks/make_detector_fixture.py made the numbers, by PyTorch 2.13.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import losses
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import detectors

FILE = pathlib.Path(__file__).parent / 'box_fixtures' / 'retinanet.npz'
LEVELS = ('p3', 'p4', 'p5', 'p6', 'p7')


@pytest.fixture(scope='module')
def numbers():
  with np.load(FILE) as file:
    return dict(file)


def converted(numbers):
  """The parameters of PyTorch's modules under the library's names."""

  def conv(name):
    kernel = numbers[f'{name}.weight'].transpose(2, 3, 1, 0)
    return {'kernel': kernel, 'bias': numbers[f'{name}.bias']}

  head = {}
  for kind in ('classes', 'boxes'):
    # Every second layer of a subnet of PyTorch is a ReLU.
    for i, layer in enumerate((0, 2, 4), start=1):
      name = f'{kind}{i}' if layer < 4 else kind
      head[name] = conv(f'head.{kind}.{layer}')
  prior = head['classes'].pop('bias')
  return {
    **{
      f'lateral{k}': {'conv': conv(f'pyramid.lateral.{k - 3}')}
      for k in (3, 4, 5)
    },
    **{f'p{k}': {'conv': conv(f'pyramid.level.{k - 3}')} for k in (3, 4, 5)},
    **{f'p{k}': {'conv': conv(f'pyramid.p{k}')} for k in (6, 7)},
    'head': {**head, 'prior': prior.reshape(9, 3)},
  }


@pytest.fixture(scope='module')
def features(numbers):
  """What the library makes of the same maps and weights."""
  backbone = [
    jd.Stage('stem', layers.ConvUnit(2, stride=4)),
    *(
      jd.Stage(f'group{i + 1}', layers.ConvUnit(width, stride=2))
      for i, width in enumerate((4, 6, 8))
    ),
    jd.Stage('pool', layers.Pool()),
  ]
  network = detectors.retinanet(
    jd.Network(tuple(backbone)), num_classes=3, width=5, depth=2
  )
  maps = {f'group{i}': numbers[f'c{i + 2}'] for i in (1, 2, 3)}
  names = graph.stage_names(network)[4:]

  @jax.jit
  def run(params, maps):
    return graph.run(network, {'params': params}, maps, only=names)[0]

  return run(converted(numbers), maps)


def test_levels_logits_offsets_and_anchors_are_those_of_pytorch(
  numbers, features
):
  for name, expected in (
    *((name, numbers[name]) for name in LEVELS),
    *(('head', numbers['logits']), ('head.boxes', numbers['offsets'])),
  ):
    np.testing.assert_allclose(
      features[name], expected, rtol=1e-4, atol=1e-4, err_msg=name
    )
  anchors = [features[f'head.anchors{k}'][0] for k in range(3, 8)]
  np.testing.assert_allclose(
    np.concatenate(anchors), numbers['anchors'], rtol=1e-5, atol=1e-4
  )
  assert np.abs(numbers['logits']).max() > 1


def test_focal_loss_and_giou_are_those_of_pytorch(numbers):
  logits, boxes = (jnp.asarray(numbers[k]) for k in ('logits', 'boxes'))
  np.testing.assert_allclose(
    losses.focal_loss(logits, logits > 0.5), numbers['focal'], rtol=1e-4
  )
  np.testing.assert_allclose(
    losses.generalized_iou_loss(boxes, jnp.roll(boxes, 1, 0)),
    numbers['giou'],
    rtol=1e-4,
  )


@pytest.mark.parametrize('box_loss', ['smooth_l1', 'giou'])
def test_the_losses_of_images_and_their_gradients_are_those_of_pytorch(
  box_loss, numbers, features
):
  task = jd.tasks.detection(box_loss=box_loss)
  batch = {
    'image': np.zeros((2, 40, 56, 3), np.float32),
    'boxes': np.stack([numbers['boxes']] * 2),
    'classes': np.stack([numbers['labels']] * 2),
  }
  anchors = {k: v for k, v in features.items() if 'anchors' in k}

  @jax.jit
  def values(logits, offsets):
    outputs = {'head': logits, 'head.boxes': offsets, **anchors}
    rows = task.statistics(outputs, batch)
    return rows['loss'].sum(), (rows['class_loss'], rows['box_loss'])

  gradients = jax.jit(jax.grad(values, (0, 1), has_aux=True))
  found, parts = gradients(numbers['logits'], numbers['offsets'])
  for name, part in zip(('class_loss', 'box_loss'), parts):
    expected = numbers[f'{box_loss}.{name}']
    np.testing.assert_allclose(part, expected, rtol=1e-4, err_msg=name)
  for name, gradient in zip(('logits', 'offsets'), found):
    expected = numbers[f'{box_loss}.{name}']
    np.testing.assert_allclose(
      gradient, expected, rtol=1e-4, atol=1e-6, err_msg=name
    )
