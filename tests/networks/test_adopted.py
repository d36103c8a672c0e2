"""Properties that every adopted model has, whatever it is made of."""

from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks import adapters, graph

IMAGE = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
RNGS = {'dropout': jax.random.key(5)}


def batch_of(image=IMAGE):
  return {'image': jnp.asarray(image)}


def assert_same(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  jax.tree.map(np.testing.assert_array_equal, first, second)


def differs(first, second) -> bool:
  return any(
    not np.array_equal(a, b)
    for a, b in zip(
      jax.tree.leaves(first), jax.tree.leaves(second), strict=True
    )
  )


class OwnModel(nn.Module):
  """A user's Linen module with named outputs."""

  @nn.compact
  def __call__(self, image, training):
    x = nn.Conv(2, (3, 3))(image)
    x = nn.BatchNorm(use_running_average=not training)(x)
    x = nn.Dropout(0.5)(x, deterministic=not training)
    return {'logits': nn.Dense(3)(x.mean((1, 2))), 'map': x}


class OwnNnx(nnx.Module):
  """A user's NNX module."""

  def __init__(self, rngs):
    self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(2, rngs=rngs)
    self.head = nnx.Linear(2, 3, rngs=rngs)

  def __call__(self, image, train):
    x = self.norm(self.conv(image), use_running_average=not train)
    return {'logits': self.head(x.mean((1, 2))), 'map': x}


def of_functions() -> Network:
  def init(rng, image):
    size = image.shape[-1]
    return {
      'params': {'w': jax.random.normal(rng, (size, 3))},
      'batch_stats': {'mean': jnp.zeros((1, size))},
    }

  def apply(variables, image, train, rngs):
    del rngs
    old = variables['batch_stats']['mean']
    pooled = image.mean((1, 2))
    mean = pooled.mean(0, keepdims=True) if train else old
    outputs = {
      'logits': (pooled - mean) @ variables['params']['w'],
      'map': image,
    }
    return outputs, {'batch_stats': {'mean': mean}} if train else {}

  return adapters.from_functions(init, apply)


def of_nnx() -> Network:
  abstract = nnx.eval_shape(lambda: OwnNnx(nnx.Rngs(0)))
  definition, *parts = nnx.split(abstract, nnx.Param, nnx.BatchStat)

  def init(rng, image):
    del image
    module = OwnNnx(nnx.Rngs(rng))
    _, params, statistics = nnx.split(module, nnx.Param, nnx.BatchStat)
    return {
      'params': nnx.to_pure_dict(params),
      'batch_stats': nnx.to_pure_dict(statistics),
    }

  def apply(variables, image, train, rngs):
    del rngs
    states = [jax.tree.map(lambda x: x, part) for part in parts]
    for state, collection in zip(states, ('params', 'batch_stats')):
      nnx.replace_by_pure_dict(state, variables[collection])
    model = nnx.merge(definition, *states)
    outputs = model(image, train)
    if not train:
      return outputs, {}
    _, _, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    return outputs, {'batch_stats': nnx.to_pure_dict(statistics)}

  return adapters.from_functions(init, apply)


ADOPTED = {
  'functions': of_functions,
  'linen': lambda: adapters.from_linen(OwnModel(), train='training'),
  'nnx by functions': of_nnx,
  'nnx': lambda: adapters.from_nnx(OwnNnx),
}


@pytest.fixture(scope='module')
def adopted_models():
  adopted = {name: make() for name, make in ADOPTED.items()}
  return {
    name: Model(network, graph.init(network, jax.random.key(0), batch_of()))
    for name, network in adopted.items()
  }


@pytest.mark.parametrize('name', ADOPTED)
def test_an_adopted_model_gives_logits_and_named_features(adopted_models, name):
  model = adopted_models[name]
  assert graph.apply(*model, batch_of()['image']).shape == (4, 3)
  features, updates = graph.run(*model, batch_of())
  assert list(features) == ['image', 'model', 'map']
  assert updates == {}
  shapes = graph.check_feature_pairs(
    model.network, model.network, (('map', 'model'),), batch_of()
  )
  assert shapes == ((features['map'].shape, (4, 3)),)


@pytest.mark.parametrize('name', ADOPTED)
def test_an_adopted_model_trains_its_statistics_and_gradients(
  adopted_models, name
):
  network, variables = adopted_models[name]

  def loss(params):
    features, updates = graph.run(
      network,
      {**variables, 'params': params},
      batch_of(),
      train=True,
      rngs=RNGS,
    )
    return (features['model'] ** 2).sum(), updates

  gradient, updates = jax.grad(loss, has_aux=True)(variables['params'])
  assert differs(gradient, jax.tree.map(jnp.zeros_like, gradient))
  assert set(updates) == {'batch_stats'}
  old = variables['batch_stats']
  assert jax.tree.structure(updates['batch_stats']) == jax.tree.structure(old)
  assert differs(updates['batch_stats'], old)


@pytest.mark.parametrize('name', ADOPTED)
def test_a_part_of_an_adopted_model_cannot_be_run(adopted_models, name):
  network = adopted_models[name].network
  with pytest.raises(
    UsageError, match=r"'map'.*valid: model\); stages run as a whole"
  ):
    graph.stages_between(network, 'image', 'map')
  with pytest.raises(UsageError, match=r"unknown stage 'map'"):
    graph.run(*adopted_models[name], batch_of(), only=['map'])


def test_an_adopted_linen_module_computes_what_it_computed_before(
  adopted_models,
):
  network, variables = adopted_models['linen']
  plain = {collection: tree['model'] for collection, tree in variables.items()}
  expected = OwnModel().apply(plain, IMAGE, training=False)['logits']
  assert_same(graph.apply(network, variables, IMAGE), expected)
