"""Adopting a user's own NNX module."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks import graph

IMAGE = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
KEYS = {'dropout': jax.random.key(5)}
FEATURES = {'early': 'blocks.0', 'deep': 'blocks.1.norm'}


class Steps(nnx.Variable):
  """A kind of variable that the library has never heard of."""


class Block(nnx.Module):
  def __init__(self, inputs, outputs, rngs):
    self.conv = nnx.Conv(inputs, outputs, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(outputs, rngs=rngs)

  def __call__(self, x):
    return nnx.relu(self.norm(self.conv(x)))


class Nnx(nnx.Module):
  """Has batch norm, dropout, a list of blocks and a variable of its own."""

  def __init__(self, *, rngs, width=2):
    self.blocks = nnx.List([Block(1, width, rngs), Block(width, width, rngs)])
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.head = nnx.Linear(width, 10, rngs=rngs)
    self.steps = Steps(jnp.zeros((), jnp.int32))
    self.unused = nnx.Linear(1, 1, rngs=rngs)

  def __call__(self, x):
    if not self.dropout.deterministic:
      self.steps[...] = self.steps[...] + 1
    for block in self.blocks:
      x = block(x)
    self.sow(nnx.Intermediate, 'map', x)
    return self.head(self.dropout(x.mean((1, 2))))


class NnxWithArgument(nnx.Module):
  """Is told by an argument whether it trains, and returns a dict."""

  def __init__(self, rngs):
    self.norm = nnx.BatchNorm(1, rngs=rngs)
    self.head = nnx.Linear(1, 3, rngs=rngs)

  def __call__(self, image, deterministic):
    x = self.norm(image, use_running_average=deterministic)
    return {'logits': self.head(x.mean((1, 2))), 'map': x}


def initialized(network: Network) -> Model:
  variables = graph.init(network, jax.random.key(0), {'image': IMAGE})
  return Model(network, variables)


def call(module, image=IMAGE):
  """The outputs of a module in inference mode."""
  copy = nnx.clone(module)
  copy.eval()
  outputs, _ = nnx.capture(copy, nnx.Intermediate)(image)
  return outputs


def assert_same(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture(scope='module')
def module():
  return Nnx(rngs=nnx.Rngs(3))


@pytest.fixture(scope='module')
def model(module):
  return jd.networks.from_nnx(module, features=FEATURES)


def test_an_nnx_module_keeps_its_weights(module, model):
  assert_same(graph.apply(*model, IMAGE), call(module))
  params = model.variables['params']['model']
  assert_same(params['head']['kernel'], module.head.kernel[...])
  assert set(model.variables) == {'params', 'batch_stats', 'steps'}


def test_adopting_a_module_does_not_change_it(module):
  before = nnx.to_pure_dict(nnx.state(module, nnx.Param, nnx.BatchStat)[0])
  adopted = jd.networks.from_nnx(module, features=FEATURES)
  graph.run(*adopted, {'image': IMAGE}, train=True, rngs=KEYS)
  after = nnx.to_pure_dict(nnx.state(module, nnx.Param, nnx.BatchStat)[0])
  assert_same(before, after)
  assert type(module.blocks[0]) is Block
  assert not module.dropout.deterministic


def test_outputs_of_nnx_submodules_become_features(module, model):
  features, updates = graph.run(*model, {'image': IMAGE})
  assert list(features) == ['image', 'model', *FEATURES]
  assert updates == {}
  early = call(module.blocks[0])
  assert_same(features['early'], early)
  conv = call(module.blocks[1].conv, early)
  assert_same(features['deep'], call(module.blocks[1].norm, conv))


@pytest.mark.filterwarnings('ignore:Using .*sow:DeprecationWarning')
def test_what_a_module_sowed_before_is_not_a_variable(module, model):
  used = nnx.clone(module)
  used(IMAGE)
  assert nnx.state(used, nnx.Intermediate)
  adopted = jd.networks.from_nnx(used, features=FEATURES)
  assert set(adopted.variables) == set(model.variables)
  assert nnx.state(used, nnx.Intermediate)


@pytest.mark.parametrize('make', ['class', 'function'])
def test_a_function_that_makes_a_module_is_a_network_with_new_weights(make):
  maker = Nnx if make == 'class' else lambda r: Nnx(rngs=r, width=2)
  network = jd.networks.from_nnx(maker)
  assert isinstance(network, Network)
  first, second = (
    graph.init(network, jax.random.key(n), {'image': IMAGE}) for n in (0, 1)
  )
  kernels = [v['params']['model']['head']['kernel'] for v in (first, second)]
  assert not np.array_equal(*kernels)
  again = graph.init(network, jax.random.key(0), {'image': IMAGE})
  assert_same(again, first)
  shapes = graph.variable_shapes(network, {'image': IMAGE})
  assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, shapes)


def test_an_nnx_model_updates_everything_but_its_parameters(model):
  features, updates = graph.run(*model, {'image': IMAGE}, train=True, rngs=KEYS)
  assert set(updates) == {'batch_stats', 'steps'}
  for collection, tree in updates.items():
    before = model.variables[collection]
    assert jax.tree.structure(tree) == jax.tree.structure(before)
  assert updates['steps']['model']['steps'] == 1
  mean = updates['batch_stats']['model']['blocks']['0']['norm']['mean']
  assert np.any(np.asarray(mean) != 0)
  assert features['model'].shape == (4, 10)


def test_dropout_of_an_nnx_model_follows_the_given_key(model):
  def outputs(key):
    keys = {'dropout': jax.random.key(key)}
    return graph.run(*model, {'image': IMAGE}, train=True, rngs=keys)[0]

  assert_same(outputs(0)['model'], outputs(0)['model'])
  assert not np.array_equal(outputs(0)['model'], outputs(1)['model'])


def test_an_nnx_model_with_no_key_for_its_dropout_is_refused(model):
  keys = {'another': jax.random.key(0)}
  with pytest.raises(
    UsageError, match=r'draws random numbers; expected.*rngs='
  ):
    graph.run(*model, {'image': IMAGE}, train=True, rngs=keys)


def test_an_nnx_model_without_any_key_trains_without_dropout(model):
  first, second = (
    graph.run(*model, {'image': IMAGE}, train=True) for _ in range(2)
  )
  assert_same(first[0]['model'], second[0]['model'])
  assert first[1]  # the statistics of the batch are updated nevertheless


def test_an_nnx_model_gives_the_same_under_jit_and_has_gradients(model):
  network, variables = model

  def loss(params, train):
    features, updates = graph.run(
      network,
      {**variables, 'params': params},
      {'image': jnp.asarray(IMAGE)},
      train=train,
      rngs=KEYS,
    )
    return (features['model'] ** 2).sum() + features['deep'].sum(), updates

  for train in (False, True):
    plain, _ = loss(variables['params'], train)
    step = jax.jit(
      jax.value_and_grad(loss, has_aux=True), static_argnames='train'
    )
    (value, _), gradient = step(variables['params'], train=train)
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    kernel = gradient['model']['blocks']['0']['conv']['kernel']
    assert np.any(np.asarray(kernel) != 0)


def test_features_pass_through_rematerialised_nnx_modules():
  class Remat(nnx.Module):
    def __init__(self, rngs):
      self.block = Block(1, 2, rngs)

    def __call__(self, x):
      return nnx.remat(lambda block, x: block(x))(self.block, x).mean((1, 2))

  remat = jd.networks.from_nnx(
    Remat(nnx.Rngs(0)), features={'map': 'block', 'conv': 'block.conv'}
  )
  features, _ = graph.run(*remat, {'image': IMAGE})
  assert features['map'].shape == features['conv'].shape == (4, 8, 8, 2)
  assert_same(features['map'].mean((1, 2)), features['model'])


def test_a_sown_value_of_an_nnx_module_can_be_a_feature(module):
  sown = jd.networks.from_nnx(module, features={'m': 'map', 'b': 'blocks.1'})
  features, _ = graph.run(*sown, {'image': IMAGE})
  assert_same(features['m'], features['b'])


def test_an_argument_of_an_nnx_module_says_whether_it_trains():
  for train in (None, 'deterministic'):
    network = jd.networks.from_nnx(NnxWithArgument, train=train)
    model = initialized(network)
    features, updates = graph.run(*model, {'image': IMAGE}, train=True)
    assert list(features) == ['image', 'model', 'map']
    np.testing.assert_allclose(features['map'].mean(), 0, atol=1e-5)
    assert set(updates) == {'batch_stats'}
    quiet, updates = graph.run(*model, {'image': IMAGE})
    np.testing.assert_allclose(quiet['map'], IMAGE, rtol=1e-4)
    assert updates == {}


def test_arrays_of_a_given_nnx_module_that_are_not_variables_are_kept():
  class Raw(nnx.Module):
    def __init__(self, rngs):
      self.scale = jnp.full(3, 2.0)
      self.head = nnx.Linear(1, 3, rngs=rngs)

    def __call__(self, x):
      return self.scale[None] * self.head(x.mean((1, 2)))

  raw = Raw(nnx.Rngs(0))
  model = jd.networks.from_nnx(raw)
  assert_same(graph.apply(*model, IMAGE), raw(IMAGE))
  with pytest.raises(UsageError, match=r"'scale'.* of Raw is an array"):
    jd.networks.from_nnx(Raw)


def test_saved_weights_of_an_nnx_model_come_back(tmp_path, model):
  path = tmp_path / 'model.safetensors'
  jd.save(path, model)
  again = jd.load(path, model.network)
  assert_same(again.variables, model.variables)
  assert_same(graph.apply(*again, IMAGE), graph.apply(*model, IMAGE))
  with pytest.raises(UsageError, match='network'):
    jd.load(path)


def test_an_nnx_model_becomes_a_module_again(model):
  network = jd.networks.from_nnx(Nnx)
  student = initialized(network)
  module = jd.networks.to_nnx(student)
  assert type(module) is Nnx
  assert_same(call(module), graph.apply(*student, IMAGE))
  small = jd.networks.create('resnet8', num_classes=3)
  with pytest.raises(UsageError, match='expected a model whose network'):
    jd.networks.to_nnx(Model(small, {}))
  with pytest.raises(UsageError, match=r"'params'.*'blocks\.0\.conv\.bias'"):
    jd.networks.to_nnx(Model(network, {'params': {'model': {}}}))


def test_a_network_of_a_given_nnx_module_makes_no_new_weights(model):
  with pytest.raises(UsageError, match='pass a function that makes the module'):
    graph.init(model.network, jax.random.key(0), {'image': IMAGE})
  shapes = graph.variable_shapes(model.network, {'image': IMAGE})
  assert jax.tree.structure(shapes) == jax.tree.structure(model.variables)
  summary = jd.networks.summary(model.network, (8, 8, 1))
  assert summary.parameters == graph.count_parameters(model.variables)


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('blocs.0', r"unknown submodule 'blocs\.0'; did you mean 'blocks\.0'"),
    ('unused', r"features\.x: the submodule 'unused' was not called"),
  ],
)
def test_a_feature_of_nnx_that_does_not_exist_is_refused(module, path, message):
  adopted = jd.networks.from_nnx(module, features={'x': path})
  with pytest.raises(UsageError, match=message):
    graph.shapes(adopted.network, {'image': IMAGE})


@pytest.mark.parametrize('value', [3, None, lambda rngs: 3])
def test_only_nnx_modules_are_adopted_by_from_nnx(value):
  with pytest.raises(UsageError, match=r'from_nnx: expected .*nnx\.Module'):
    jd.networks.from_nnx(value)


@pytest.mark.parametrize(
  ('outputs', 'got'),
  [((1, 2), 'tuple'), ({'hidden': IMAGE}, "a dict with 'hidden'")],
)
def test_outputs_without_logits_are_refused(outputs, got):
  network = jd.networks.from_functions(
    lambda rng, image: {'params': {}}, lambda *_: (outputs, {})
  )
  with pytest.raises(UsageError, match=f'expected logits or a dict.*got {got}'):
    graph.run(network, {'params': {}}, {'image': IMAGE})


def test_a_feature_may_not_take_the_name_of_an_output():
  network = jd.networks.from_nnx(NnxWithArgument, features={'map': 'norm'})
  with pytest.raises(UsageError, match="'map' is already the name"):
    graph.shapes(network, {'image': IMAGE})


@pytest.mark.parametrize('method', ['kd', 'at'])
def test_an_nnx_teacher_teaches_an_nnx_student(method):
  dataset = jd.data.digits(train_subset=32)
  recipe = jd.recipe(dataset, epochs=1, batch_size=16)
  teacher = jd.networks.from_nnx(Nnx(rngs=nnx.Rngs(1)), features=FEATURES)
  network = jd.networks.from_nnx(
    lambda rngs: Nnx(rngs=rngs, width=3), features=FEATURES
  )
  models = {'teacher': teacher, 'student': jd.new_model(network, recipe)}
  pairs = (('early', 'early'), ('deep', 'deep'))
  options = {'at': {'feature_pairs': pairs}}.get(method, {})
  trained = jd.fit(
    getattr(jd.methods, method)(recipe, **options), models, dataset
  ).carry
  before, after = (
    m.variables['params'] for m in (models['student'], trained['student'])
  )
  assert not np.array_equal(
    before['model']['head']['kernel'], after['model']['head']['kernel']
  )
  assert_same(trained['teacher'].variables, teacher.variables)
  assert 0 <= jd.evaluate(trained['student'], dataset)['top1'] <= 1
