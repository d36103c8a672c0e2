"""Gradient norms, batch by batch, and their noise."""

import jax
import numpy as np
import pytest

from jaxdistill.analysis import gradient_noise
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import mobilenet
from jaxdistill.tasks import classification

PREPROCESS = augment.standardize((128.0,), (64.0,))
TASK = classification()


@pytest.fixture(scope='module')
def split():
  image = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)
  return {'image': image, 'label': np.arange(12) % 3}


@pytest.fixture(scope='module')
def model():
  stages = (
    Stage('stem', layers.ConvUnit(2)),
    Stage('block', mobilenet.SeparableBlock(3)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(3)),
  )
  network = Network(stages)
  image = {'image': jax.ShapeDtypeStruct((1, 4, 4, 1), np.float32)}
  return Model(network, graph.init(network, jax.random.key(0), image))


def norms(model, split, **arguments):
  return gradient_noise.gradient_norms(
    model, split, PREPROCESS, TASK, **arguments
  )


def test_each_layer_has_the_norm_of_its_gradient(model, split):
  # The only batch is the whole split.
  layer_norms = norms(model, split, batch_size=12, num_batches=2)
  assert list(layer_norms) == [
    *('stem/conv', 'block/depthwise_conv', 'block/pointwise_conv'),
    'head/linear',
  ]
  batch = PREPROCESS(jax.random.key(0), split)

  def loss_of(params):
    variables = {**model.variables, 'params': params}
    features, _ = graph.run(
      model.network, variables, {'image': batch['image']}, train=True
    )
    return TASK.loss(features['head'], batch).mean()

  gradient = jax.grad(loss_of)(model.variables['params'])
  expected = np.linalg.norm(gradient['block']['depthwise_conv']['kernel'])
  # The second batch has the same images in another order.
  for value in layer_norms['block/depthwise_conv']:
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_noise_is_the_standard_deviation_over_the_mean():
  noise = gradient_noise.noise({'a': np.array([1.0, 3.0])})
  assert noise == {'a': pytest.approx(2**0.5 / 2)}


def test_smaller_batches_are_noisier(model, split):
  small, large = (
    gradient_noise.noise(norms(model, split, batch_size=n, num_batches=20))
    for n in (2, 6)
  )
  assert small['head/linear'] > large['head/linear']


def test_a_line_shows_the_noise_of_each_layer():
  figure = gradient_noise.draw({'small': {'a': np.ones(3), 'b': np.arange(3)}})
  (line,) = figure.axes[0].lines
  np.testing.assert_allclose(line.get_ydata(), [0.0, 1.0])


def test_a_batch_larger_than_the_split_is_refused(model, split):
  with pytest.raises(UsageError, match=r'batch_size: .*got 13'):
    norms(model, split, batch_size=13)
