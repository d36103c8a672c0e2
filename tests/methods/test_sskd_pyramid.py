"""SSKD of detectors: the levels of a pyramid are learned by one stage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import methods, objectives
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import detectors
from jaxdistill.phases import statistics
from jaxdistill.study import nesting, registry, values
from jaxdistill.tasks import detection

GROUPS = tuple((f'group{k}', f'group{k}') for k in (1, 2, 3))
PYRAMID = tuple((f'p{k}', f'p{k}') for k in (3, 4, 5, 6, 7))
STAGES = ('lateral5', 'lateral4', 'lateral3', 'p3', 'p4', 'p5', 'p6', 'p7')
SIZE = (32, 32)


def network(width, pyramid):
  stages = [
    jd.Stage('stem', layers.ConvUnit(width, stride=2)),
    *(
      jd.Stage(f'group{i}', layers.ConvUnit(width, stride=2)) for i in (1, 2, 3)
    ),
    jd.Stage('pool', layers.Pool()),
  ]
  return detectors.retinanet(
    jd.Network(tuple(stages)), num_classes=2, width=pyramid, depth=0
  )


@pytest.fixture(scope='module')
def recipe():
  columns = {
    'image': np.zeros((8, *SIZE, 3), np.uint8),
    'boxes': np.tile(np.float32([[0, 0, 20, 20]]), (8, 1, 1)),
    'classes': np.ones((8, 1), np.int32),
  }
  data = jd.data.from_columns(columns, columns, num_classes=2, validation=2)
  return jd.recipe(data, detection(), epochs=2, batch_size=2)


def carry(recipe, student, teacher):
  image = {'image': recipe.example['image']}
  return {
    role: Model(network, graph.variable_shapes(network, image))
    for role, network in (('student', student), ('teacher', teacher))
  }


def traced(phase, models, recipe):
  """The shapes of a state, and the state and metrics after a step."""
  rng = jax.random.key(0)

  def step(variables, batch):
    models_now = {k: Model(models[k].network, v) for k, v in variables.items()}
    state, frozen = phase.init(rng, models_now)
    return state, phase.step(state, frozen, {'train': batch}, rng, None)

  variables = {k: m.variables for k, m in models.items()}
  return jax.eval_shape(step, variables, dict(recipe.example))


@pytest.mark.parametrize(
  'teacher_width, adapters, views',
  [(4, 5, set()), (3, 0, {'partial'})],
)
def test_one_stage_learns_all_levels(recipe, teacher_width, adapters, views):
  models = carry(recipe, network(2, 3), network(4, teacher_width))
  phases = methods.sskd(recipe, cut=(*GROUPS, PYRAMID), statistics_steps=0)
  assert len(phases) == 2 * 4 + 1
  phase = phases[6](models)
  assert phase.name == 'stage4'
  state, (_, metrics) = traced(phase, models, recipe)
  assert {k for k in metrics if k.startswith('distance')} == {
    f'distance/p{k}' for k in (3, 4, 5, 6, 7)
  }
  made = state.variables.get('adapters', {'params': {}})
  assert len(made['params']) == adapters
  assert {*phase.eval_models} == views
  head = phases[8](models)
  trained = jax.tree.leaves(
    head.init(jax.random.key(0), concrete(models))[0].optimizer
  )
  expected = graph.variable_shapes(
    models['student'].network, {'image': recipe.example['image']}
  )['params']['head']
  momentum = [x.shape for x in trained if x.ndim]
  assert sorted(momentum) == sorted(x.shape for x in jax.tree.leaves(expected))


def concrete(models):
  return {
    k: Model(
      m.network,
      jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), m.variables),
    )
    for k, m in models.items()
  }


@pytest.mark.parametrize('boundary', [1, 2, 3])
def test_no_stage_of_the_teacher_reads_a_feature_of_another_shape(
  recipe, boundary
):
  """The laterals read groups by name, past the adapter."""
  models = carry(recipe, network(2, 3), network(4, 3))
  phases = methods.sskd(recipe, cut=GROUPS[:boundary], statistics_steps=0)
  phase = phases[2 * boundary - 2](models)
  assert not phase.eval_models


@pytest.mark.parametrize(
  'cut, words',
  [
    ((*GROUPS, PYRAMID[::-1]), "'p6' is not computed after 'p7'"),
    ((PYRAMID, *GROUPS), "'group1' is not computed after 'p7'"),
    ((*GROUPS, (*PYRAMID, ('p8', 'p7'))), "student feature 'p8'"),
    ((*GROUPS, ()), 'expected at least one pair'),
    ((*GROUPS, ('p3', 'p3', 'p4')), "got .'p3', 'p3', 'p4'"),
    ((*GROUPS, PYRAMID, ('head', 'head')), 'before the head'),
  ],
)
def test_cuts_that_are_not_valid_are_refused(recipe, cut, words):
  models = carry(recipe, network(2, 3), network(2, 3))
  with pytest.raises(UsageError, match=words):
    methods.sskd(recipe, cut=cut)[0](models)


def test_a_config_may_hold_a_cut_with_several_pairs():
  annotation = values.annotations(methods.sskd)['cut']
  for cut in (
    (*GROUPS, PYRAMID),
    [list(GROUPS[0]), [list(p) for p in PYRAMID]],
  ):
    assert nesting.choose(cut, annotation, registry.TABLES, 'cut') is None
  with pytest.raises(UsageError, match='cut'):
    nesting.choose((*GROUPS, 3), annotation, registry.TABLES, 'cut')


def test_hints_are_summed_over_the_levels(recipe):
  pair = objectives.pair_of(network(2, 3), network(4, 5), recipe)
  objective = objectives.hint(feature_pairs=PYRAMID[:2], activation=False)
  term = objective(pair)
  assert [s.module.activation for s in term.adapters] == [False, False]
  rng = np.random.default_rng(0)
  features = {
    name: jnp.asarray(rng.normal(size=shape).astype(np.float32))
    for name, shape in (
      *((f'hint{i}', (2, 3, 3, 5)) for i in (0, 1)),
      *((f'teacher/p{k}', (2, 3, 3, 5)) for k in (3, 4)),
    )
  }
  expected = sum(
    jd.losses.hint_loss(features[f'hint{i}'], features[f'teacher/p{i + 3}'])
    for i in (0, 1)
  )
  np.testing.assert_allclose(term.loss(features, {}, {}), expected, rtol=1e-6)


def test_statistics_of_frozen_norms_stay():
  stages = (
    jd.Stage('stem', layers.ConvUnit(2, frozen=True)),
    jd.Stage('group1', layers.ConvUnit(2)),
  )
  net = jd.Network(stages)
  image = np.random.default_rng(0).normal(size=(4, 4, 4, 1)).astype(np.float32)
  variables = graph.init(net, jax.random.key(0), {'image': image})
  variables['batch_stats']['stem']['norm']['mean'] = jnp.array([1.0, 2.0])
  phase = statistics.statistics_phase(
    'statistics',
    net,
    ('stem', 'group1'),
    role='student',
    num_steps=2,
    stream=jd.Stream(4, lambda rng, batch: batch),
  )
  carried = {'student': Model(net, variables)}
  state, frozen = phase.init(jax.random.key(0), carried)
  step = jax.jit(functools.partial(phase.step, static=None))
  for _ in range(2):
    batches = {'train': {'image': image}}
    state, _ = step(state, frozen, batches, jax.random.key(1))
  after = state.variables['batch_stats']
  np.testing.assert_array_equal(after['stem']['norm']['mean'], [1.0, 2.0])
  np.testing.assert_array_equal(after['stem']['norm']['var'], [1.0, 1.0])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
  assert (np.asarray(after['group1']['norm']['var']) != 1).all()
