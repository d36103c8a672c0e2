"""Adopting a user's own Linen module."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks import graph

IMAGE = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
KEYS = {'dropout': jax.random.key(5)}


def initialized(network: Network) -> Model:
  variables = graph.init(network, jax.random.key(0), {'image': IMAGE})
  return Model(network, variables)


def assert_same(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  jax.tree.map(np.testing.assert_array_equal, first, second)


class LinenBlock(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.relu(nn.Conv(2, (3, 3), name='conv')(x))


class Linen(nn.Module):
  @nn.compact
  def __call__(self, image, train):
    x = LinenBlock(name='block')(image)
    x = nn.BatchNorm(use_running_average=not train, name='norm')(x)
    self.sow('intermediates', 'map', x)
    x = nn.Dropout(0.5)(x, deterministic=not train)
    return nn.Dense(3, name='head')(x.mean((1, 2)))


@pytest.mark.parametrize('train', [False, True])
def test_outputs_of_linen_submodules_become_features(train):
  plain = initialized(jd.networks.from_linen(Linen()))
  network = jd.networks.from_linen(
    Linen(), features={'b': 'block', 'c': 'block.conv', 'm': 'map', 'n': 'norm'}
  )
  assert_same(initialized(network).variables, plain.variables)
  options = {'train': train, 'rngs': KEYS}
  expected, plain_updates = graph.run(*plain, {'image': IMAGE}, **options)
  features, updates = jax.jit(
    lambda variables: graph.run(network, variables, {'image': IMAGE}, **options)
  )(plain.variables)
  np.testing.assert_allclose(features['model'], expected['model'], rtol=1e-5)
  assert jax.tree.structure(updates) == jax.tree.structure(plain_updates)
  np.testing.assert_array_equal(features['b'], np.maximum(features['c'], 0))
  assert_same(features['m'], features['n'])


def test_a_feature_of_linen_that_does_not_exist_is_refused():
  network = jd.networks.from_linen(Linen(), features={'x': 'blck.conv'})
  with pytest.raises(
    UsageError, match=r"'blck\.conv'; did you mean 'block\.co"
  ):
    graph.shapes(network, {'image': IMAGE})


@pytest.mark.parametrize(
  'argument', ['training', 'deterministic', 'use_running_average']
)
def test_the_training_argument_of_linen_may_have_another_name(argument):
  class Norm(nn.Module):
    @nn.compact
    def __call__(self, image, **arguments):
      value = arguments[argument]
      average = not value if argument == 'training' else value
      x = nn.BatchNorm(use_running_average=average)(image)
      return x.mean((1, 2))

  model = initialized(jd.networks.from_linen(Norm(), train=argument))
  trained, updates = graph.run(*model, {'image': IMAGE}, train=True)
  np.testing.assert_allclose(trained['model'].mean(), 0, atol=1e-5)
  assert set(updates) == {'batch_stats'}


def test_a_linen_module_need_not_have_a_training_argument():
  class Plain(nn.Module):
    @nn.compact
    def __call__(self, image):
      return nn.Dense(3)(image.mean((1, 2)))

  model = initialized(jd.networks.from_linen(Plain(), train=''))
  assert graph.apply(*model, IMAGE).shape == (4, 3)


class Frozen(nn.Module):
  @nn.compact
  def __call__(self, image, frozen=False, *, is_training=True):
    del frozen, is_training
    return nn.Dense(3)(image.mean((1, 2)))


class Plain(nn.Module):
  @nn.compact
  def __call__(self, image):
    return nn.Dense(3)(image.mean((1, 2)))


@pytest.mark.parametrize(
  ('module', 'arguments', 'message'),
  [
    (
      Linen(),
      {'train': 'training'},
      "unknown argument train of Linen.__call__ 'training'; did you mean "
      "'train'? (valid: train, '' if it has none)",
    ),
    (
      Frozen(),
      {'train': 'training'},
      "unknown argument train of Frozen.__call__ 'training'; did you mean "
      "'is_training'? (valid: frozen, is_training, '' if it has none)",
    ),
    (
      Plain(),
      {},
      "unknown argument train of Plain.__call__ 'train' (valid: '' if it has "
      'none)',
    ),
  ],
)
def test_a_training_argument_that_linen_lacks_is_refused_in_one_line(
  module, arguments, message
):
  with pytest.raises(UsageError) as error:
    jd.networks.from_linen(module, **arguments)
  assert str(error.value) == message


def test_the_first_argument_of_linen_is_not_its_training_argument():
  with pytest.raises(UsageError, match=r"Plain\.__call__ 'image'"):
    jd.networks.from_linen(Plain(), train='image')
