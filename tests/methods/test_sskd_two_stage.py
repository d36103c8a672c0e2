"""SSKD of detectors in two stages, and what its head trains with labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import methods, objectives
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import two_stage
from jaxdistill.phases import joint
from jaxdistill.tasks import two_stage_detection
from jaxdistill.training import loop

GROUPS = tuple((f'group{k}', f'group{k}') for k in (1, 2, 3, 4))
PYRAMID = tuple((f'p{k}', f'p{k}') for k in (2, 3, 4, 5))
HEAD = {'rpn', 'head'}


def network(width, pyramid):
  stages = [
    jd.Stage('stem', layers.ConvUnit(width, stride=2)),
    *(
      jd.Stage(f'group{i}', layers.ConvUnit(width, stride=2))
      for i in (1, 2, 3, 4)
    ),
    jd.Stage('pool', layers.Pool()),
  ]
  return two_stage.faster_rcnn(
    jd.Network(tuple(stages)),
    num_classes=2,
    width=pyramid,
    head_width=4,
    count=4,
    candidates=4,
  )


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  columns = {
    'image': rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
    'boxes': np.tile(np.float32([[0, 0, 20, 20]]), (8, 1, 1)),
    'classes': np.ones((8, 1), np.int32),
  }
  return jd.data.from_columns(columns, columns, num_classes=2, validation=2)


@pytest.fixture(scope='module')
def recipe(data):
  return jd.recipe(data, two_stage_detection(), epochs=2, batch_size=2)


@pytest.fixture(scope='module')
def models(recipe):
  image = {'image': recipe.example['image']}
  return {
    role: Model(
      network,
      jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        graph.variable_shapes(network, image),
      ),
    )
    for role, network in (
      ('student', network(2, 3)),
      ('teacher', network(4, 5)),
    )
  }


def traced(phase, models, recipe):
  """Returns the shapes of the state, and of the metrics of a step."""
  state, frozen = phase.init(jax.random.key(0), models)
  batches = {'train': dict(recipe.example)}
  new_state, metrics = jax.eval_shape(
    lambda batches: phase.step(state, frozen, batches, jax.random.key(0), None),
    batches,
  )
  return new_state, metrics


def test_the_pyramid_is_one_stage_and_the_rest_is_the_head(recipe, models):
  phases = methods.sskd(recipe, cut=(*GROUPS, PYRAMID), statistics_steps=0)
  assert len(phases) == 2 * 5 + 1
  _, metrics = traced(phases[8](models), models, recipe)
  assert {k for k in metrics if k.startswith('distance')} == {
    f'distance/p{k}' for k in (2, 3, 4, 5)
  }
  state, metrics = traced(phases[10](models), models, recipe)
  assert {'rpn_class_loss', 'rpn_box_loss', 'class_loss'} <= {*metrics}
  momentum = [x.shape for x in jax.tree.leaves(state.optimizer) if x.ndim]
  params = models['student'].variables['params']
  trained = jax.tree.leaves({name: params[name] for name in HEAD})
  assert sorted(momentum) == sorted(x.shape for x in trained)


def test_only_the_student_sees_the_true_boxes(recipe, models):
  seen = []

  def spy(pair):
    del pair

    def loss(features, *_):
      seen.append({k: v.shape for k, v in features.items()})
      return jnp.zeros(())

    return objectives.Term(loss)

  (build,) = joint.joint(recipe, terms={'spy': jd.objectives.any_classes(spy)})
  traced(build(models), models, recipe)
  assert seen[0]['student/proposals'] == (2, 5, 4)
  assert seen[0]['teacher/proposals'] == (2, 4, 4)


def test_regions_that_only_the_student_has_are_not_compared(recipe, models):
  hint = objectives.hint(feature_pairs=(('head', 'head'),))
  (build,) = joint.joint(recipe, terms={'hint': hint})
  with pytest.raises(
    UsageError, match=r"one shape, got 'head', .* \(4, 3\) .* \(5, 3\)"
  ):
    traced(build(models), models, recipe)


def test_a_run_stopped_in_each_kind_of_phase_ends_with_the_same_bits(
  data, recipe, tmp_path
):
  # Each phase with steps has two.
  method = methods.sskd(
    recipe, cut=(('group4', 'group4'), PYRAMID), statistics_steps=2
  )
  start = {
    'student': jd.new_model(network(2, 3), recipe),
    'teacher': jd.new_model(network(4, 5), recipe, seed=1),
  }

  def fit(calls, **options):
    asked = iter(range(100))
    options = jd.FitOptions(
      interrupted=lambda: next(asked) + 1 >= calls, **options
    )
    return jd.fit(method, start, data, options=options).carry['student']

  whole = fit(100).variables
  calls = 2
  for phase in ('stage1', 'stage1_statistics', 'stage2', 'head'):
    with pytest.raises(loop.Interrupted, match=f"step 1 of phase '{phase}'"):
      fit(calls, directory=str(tmp_path))
    calls = 3  # the rest of this phase comes first
  resumed = fit(100, directory=str(tmp_path)).variables
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)
  moved = jax.tree.map(
    lambda x, y: abs(x - y).max(), whole, start['student'].variables
  )
  for stages in moved.values():
    assert min(max(jax.tree.leaves(stage)) for stage in stages.values()) > 0
