"""DistPro with further terms, with other weights, and with plateau rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import objectives, optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.methods.distpro import method as distpro
from jaxdistill.methods.distpro import pathways
from jaxdistill.methods.distpro import process as process_lib
from jaxdistill.methods.l2t_ww import method as l2t_ww
from jaxdistill.networks import graph
from jaxdistill.phases import recipes
from jaxdistill.study import parse, registry

SPACE = pathways.all_pairs(
  transforms=('T1',), student=('group2.pre',), teacher=('group2.pre',)
)
SEARCH = {'space': SPACE, 'validation': 1 / 3, 'search_epochs': 2}
TERMS = {
  'kd': objectives.kd(weight=0.25),
  'hint': objectives.hint(weight=3.0),
  'reviewkd': objectives.reviewkd(weight=2.0, warmup=0.5),
}
FAST = {'xla_backend_optimization_level': 0}


@pytest.fixture(scope='module')
def carry(student, teacher):
  return {'student': student, 'teacher': teacher}


def built(recipe, carry, terms, label_weight=1.0):
  networks = distpro._forward(carry, recipe, SPACE, terms, 'student', 'teacher')
  return networks._replace(label_weight=label_weight)


@pytest.fixture(scope='module')
def losses(recipe, carry, batch):
  """The losses of a training and of a validation step, by case."""
  whole = built(recipe, carry, TERMS)
  network, inputs = whole.adapters
  variables = {
    **{role: model.variables for role, model in carry.items()},
    'adapters': graph.init(network, jax.random.key(2), inputs),
  }

  def compute(variables, batch):
    rng, progress = jax.random.key(1), jnp.float32(0.125)
    cases = {
      'plain': built(recipe, carry, {}),
      'terms': whole,
      'half': built(recipe, carry, TERMS, label_weight=0.5),
    }
    return {
      name: (
        networks.train(variables, batch, rng, progress),
        networks.validate(variables, batch, rng),
      )
      for name, networks in cases.items()
    }

  return jax.jit(compute, compiler_options=FAST)(variables, batch)


def test_terms_are_added_to_the_training_loss_with_their_weights(losses):
  ((plain, summands), _), _ = losses['plain']
  ((total, same_summands), (_, metrics)), _ = losses['terms']
  # At an eighth of the training, a warm-up over half of it is at a quarter.
  expected = plain + 0.25 * metrics['kd'] + 3.0 * metrics['hint']
  expected += 2.0 * 0.25 * metrics['reviewkd']
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  np.testing.assert_allclose(same_summands, summands, rtol=1e-6)
  assert all(metrics[label] > 1e-3 for label in TERMS)


def test_terms_are_not_in_the_validation_loss(losses):
  np.testing.assert_array_equal(losses['terms'][1], losses['plain'][1])


def test_the_weight_of_the_labels_does_not_scale_the_terms(losses):
  label = losses['plain'][0][0][0]
  total, half = losses['terms'][0][0][0], losses['half'][0][0][0]
  np.testing.assert_allclose(total - half, 0.5 * label, rtol=1e-4)


def test_adapters_of_terms_train_beside_the_transforms(recipe, carry, losses):
  updates = losses['terms'][0][1][0]['adapters']['batch_stats']
  assert {'pathway0', 'hint0', 'review0'} <= set(updates)
  for make in (
    distpro.distpro_retrain(recipe, use='equal', space=SPACE, terms=TERMS),
    distpro.distpro_search(recipe, terms=TERMS, **SEARCH),
  ):
    state = initial(make[0](carry), carry)
    assert 'hint0' in state.variables['adapters']['params']
    assert set(state.variables) == {'student', 'adapters'}


def initial(phase, carry):
  """The shapes of the state with which a phase begins."""

  def init(rng):
    return phase.init(rng, carry)[0]

  return jax.eval_shape(init, jax.random.key(0))


def test_a_step_with_terms_can_be_traced_in_every_phase(recipe, carry, batch):
  """The search linearises the terms, so they need a forward-mode derivative."""
  (searching,) = distpro.distpro_search(recipe, terms=TERMS, **SEARCH)
  (equal,) = distpro.distpro_retrain(
    recipe, use='equal', space=SPACE, terms=TERMS
  )
  for make, static in ((searching, None), (equal, (0,))):
    metrics = traced(make(carry), carry, batch, static)[1]
    assert {*TERMS, 'pathways', 'top1'} <= set(metrics)


def one_step(phase, carry, batch, static=None):
  """Returns key -> the state and the metrics after the first step."""

  def step(rng):
    state, frozen = phase.init(rng, carry)
    batches = dict.fromkeys(phase.streams, batch)
    return phase.step(state, frozen, batches, rng, static)

  return step


def traced(*arguments):
  return jax.eval_shape(one_step(*arguments), jax.random.key(0))


def stepped(*arguments):
  step = jax.jit(one_step(*arguments), compiler_options=FAST)
  return step(jax.random.key(0))


def test_a_search_can_minimise_the_loss_that_is_replayed(recipe, carry, batch):
  """There is one pathway, whose weight is 1/2 in the beginning."""
  plateau = optimizers.plateau(rate=0.5, window=1)
  (make,) = distpro.distpro_search(
    recipe,
    search_weight=6.0,
    weights_optimizer=optimizers.sgd(plateau),
    **SEARCH,
  )
  state, metrics = stepped(make(carry), carry, batch)
  # The metric of the pathways has no factor, as in the training.
  label = metrics['loss'] - 6.0 * metrics['pathways']
  (expected, summands), _ = losses_at(recipe, carry, batch)
  np.testing.assert_allclose(label, expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['pathways'], summands[0] / 2, rtol=1e-4)
  (rule,) = (
    x
    for x in jax.tree.leaves(
      state.raw_optimizer,
      is_leaf=lambda x: isinstance(x, optimizers.PlateauState),
    )
    if isinstance(x, optimizers.PlateauState)
  )
  best = rule.rule.best_value
  np.testing.assert_allclose(best, metrics['validation_loss'], rtol=1e-6)


def losses_at(recipe, carry, batch):
  """The losses without weights, with the transforms of a search's start."""
  networks = built(recipe, carry, {})
  (phase,) = distpro.distpro_search(recipe, **SEARCH)

  def compute(rng):
    start, _ = phase(carry).init(rng, carry)
    variables = {'teacher': carry['teacher'].variables, **start.variables}
    return networks.train(variables, batch, rng, jnp.float32(0))

  return jax.jit(compute, compiler_options=FAST)(jax.random.key(0))


PLATEAU = optimizers.sgd(optimizers.plateau(rate=0.1, window=1))


@pytest.mark.parametrize(
  'make',
  [
    lambda r: distpro.distpro_search(r, weights_optimizer=PLATEAU, **SEARCH),
    lambda r: distpro.distpro_search(
      r, weights_optimizer=PLATEAU, order='algorithm1', **SEARCH
    ),
    lambda r: l2t_ww.l2t_ww(r, weights_optimizer=PLATEAU),
  ],
  ids=['search', 'algorithm1', 'l2t_ww'],
)
def test_the_weights_may_have_a_plateau_schedule(make, recipe, carry, batch):
  phase = make(recipe)[0](carry)
  state, _ = traced(phase, carry, batch)
  assert jax.tree.structure(state) == jax.tree.structure(initial(phase, carry))


@pytest.mark.parametrize(
  'name', ['distpro', 'distpro_search', 'distpro_retrain']
)
def test_a_config_names_terms_as_for_joint(name):
  section = {'name': name, 'terms': {'kd': {'weight': 0.5}, 'hint': {}}}
  parsed = parse.parse(
    section, registry.METHODS, 'row', registry.TABLES, context=('recipe',)
  )
  assert parsed.resolved['terms']['kd']['weight'] == 0.5
  assert parsed.resolved['terms']['hint']['name'] == 'hint'


def names(method, carry):
  return [make(carry).name for make in method]


def test_one_search_serves_both_uses_of_its_process(recipe, carry):
  method = distpro.distpro(recipe, use=('last', 'process'), **SEARCH)
  searching, keep, last, whole = method
  after = {**carry, 'process': process_arrays()}
  assert names((searching, keep), carry) == ['search', 'keep_last']
  kept = keep(carry)
  state, frozen = kept.init(jax.random.key(0), carry)
  after |= kept.finish(state, frozen, carry)
  assert after['last'] is not None
  assert names((last, whole), after) == ['retrain_last', 'retrain']
  assert tuple(last(after).eval_models) == ('last',)
  assert tuple(whole(after).eval_models) == ('student',)


def process_arrays():
  path = process_lib.Pathway('group2.pre', 'group2.pre', 'T1', 1, 1)
  return process_lib.to_arrays(process_lib.equal((path,)))


@pytest.mark.parametrize(
  ('use', 'words'),
  [
    ((), "expected 'process', 'last' or both, got []"),
    (('last', 'last'), "got ['last', 'last']"),
    (('last', 'equal'), 'which needs no search'),
    (('last', 'first'), "unknown use 'first'"),
  ],
)
def test_other_uses_are_refused(use, words, recipe):
  with pytest.raises(UsageError) as caught:
    distpro.distpro(recipe, use=use, **SEARCH)
  assert words in str(caught.value)


@pytest.mark.parametrize('weight', [-1.0, float('nan'), True])
def test_a_weight_that_is_no_number_of_at_least_0_is_refused(weight, recipe):
  with pytest.raises(UsageError, match='search_weight: expected a number'):
    distpro.distpro_search(recipe, search_weight=weight, **SEARCH)


@pytest.mark.parametrize('epochs', [-1, float('nan'), -0.5])
def test_negative_epochs_are_refused(epochs, dataset):
  with pytest.raises(UsageError, match='epochs: expected a number of at leas'):
    recipes.recipe(dataset, epochs=epochs, batch_size=8)
