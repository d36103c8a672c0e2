"""FGD on a pair of small detectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import losses, objectives
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import detectors, two_stage
from jaxdistill.objectives import detection_terms
from jaxdistill.phases import joint
from jaxdistill.tasks import classification, detection

RNG = np.random.default_rng(0)
SIZE = (32, 64)


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
    'boxes': np.tile(np.float32([[0, 0, 20, 40], [9, 9, 30, 60]]), (8, 1, 1)),
    'classes': np.ones((8, 2), np.int32),
    'crowd': np.tile([False, True], (8, 1)),
  }
  data = jd.data.from_columns(columns, columns, num_classes=2, validation=2)
  return jd.recipe(data, detection(), epochs=1, batch_size=2)


@pytest.fixture(scope='module')
def pair(recipe):
  return objectives.pair_of(network(2, 3), network(2, 4), recipe)


def test_a_new_context_adds_nothing_and_a_trained_one_a_vector():
  x = jnp.asarray(RNG.normal(size=(2, 3, 4, 6)), jnp.float32)
  module = detection_terms.GlobalContext()
  params = module.init(jax.random.key(0), x)['params']
  np.testing.assert_array_equal(module.apply({'params': params}, x), x)
  params = jax.tree.map(
    lambda p: RNG.normal(size=p.shape).astype(np.float32), params
  )
  places = np.asarray(x).reshape(2, 12, 6)
  scores = places @ params['places']['kernel'] + params['places']['bias']
  weight = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
  context = (weight * places).sum(1)
  hidden = context @ params['hidden']['kernel'] + params['hidden']['bias']
  hidden -= hidden.mean(1, keepdims=True)
  hidden /= np.sqrt((hidden**2).mean(1, keepdims=True) + 1e-5)
  hidden = hidden * params['norm']['scale'] + params['norm']['bias']
  added = np.maximum(hidden, 0) @ params['added']['kernel']
  expected = x + (added + params['added']['bias'])[:, None, None]
  actual = module.apply({'params': params}, x)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_by_default_the_levels_of_both_pyramids_are_compared(pair):
  assert [stage.inputs for stage in objectives.fgd()(pair).adapters] == [
    (f'student/p{k}', f'teacher/p{k}') for k in (3, 4, 5, 6, 7)
  ]


def test_the_level_that_repeats_another_one_is_not_compared(recipe):
  def detector(width):
    stages = [
      jd.Stage(f'group{i}', layers.ConvUnit(2, stride=2)) for i in (1, 2, 3, 4)
    ]
    return two_stage.faster_rcnn(
      jd.Network((*stages, jd.Stage('pool', layers.Pool()))),
      num_classes=2,
      width=width,
      head_width=2,
      count=2,
      candidates=2,
    )

  both = objectives.pair_of(detector(3), detector(4), recipe)
  assert [stage.inputs for stage in objectives.fgd()(both).adapters] == [
    (f'student/p{k}', f'teacher/p{k}') for k in (2, 3, 4, 5)
  ]


def test_boxes_but_not_crowds_are_the_foreground(pair):
  objective = objectives.fgd(relation=0.1, feature_pairs=(('p3', 'p3'),))
  term = objective(pair)
  shapes = objectives.adapter_inputs(pair)
  shapes = {**shapes, **graph.shapes(jd.Network(term.adapters), shapes)}
  features = {
    name: jnp.asarray(RNG.normal(size=shapes[name].shape), jnp.float32)
    for name in ('fgd0', 'fgd0.student', 'fgd0.teacher', 'teacher/p3')
  }
  boxes = jnp.tile(jnp.float32([[0, 0, 20, 40], [9, 9, 30, 60]]), (2, 1, 1))
  batch = {
    'image': jnp.zeros((2, *SIZE, 3)),
    'boxes': boxes,
    'classes': jnp.ones((2, 2), jnp.int32),
    'crowd': jnp.tile(jnp.array([False, True]), (2, 1)),
  }
  # One compiled program is quicker than many small ones.
  actual = jax.jit(lambda x: term.loss(x, batch, {}))(features)
  expected = jax.jit(
    lambda x: (
      losses.focal_distillation_loss(
        x['fgd0'],
        x['teacher/p3'],
        boxes[:, :1],
        jnp.ones((2, 1), bool),
        image_size=SIZE,
      )
      + 0.1
      * losses.squared_distance(
        x['fgd0.student'], x['fgd0.teacher'], reduction='sum'
      )
    )
  )(features)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_step_trains_the_student_and_both_contexts(pair, recipe):
  image = {'image': recipe.example['image']}

  def changes(rng):
    carry = {
      role: Model(network, graph.init(network, rng, image))
      for role, network in (
        ('student', pair.student),
        ('teacher', pair.teacher),
      )
    }
    phase = joint.joint(recipe, terms={'fgd': objectives.fgd()})[0](carry)
    state, frozen = phase.init(rng, carry)
    batch = {k: jnp.zeros(x.shape, x.dtype) for k, x in recipe.example.items()}
    return phase.step(state, frozen, {'train': batch}, rng, None)

  state, metrics = jax.eval_shape(changes, jax.random.key(0))
  assert metrics['fgd'].shape == ()
  trained = {
    '/'.join(str(getattr(k, 'key', getattr(k, 'name', k))) for k in path)
    for path, _ in jax.tree.flatten_with_path(state)[0]
  }
  for context in ('student', 'teacher'):
    assert any(f'fgd0/{context}/added' in name for name in trained), trained


def test_other_tasks_and_networks_are_refused(pair):
  other = pair._replace(recipe=pair.recipe._replace(task=classification()))
  with pytest.raises(UsageError, match=r"fgd: .*detection.*'classification'"):
    objectives.fgd()(other)
  shapes = {'group1': pair.student_shapes['group1']}
  with pytest.raises(UsageError, match='feature_pairs: expected detectors'):
    objectives.fgd()(pair._replace(student_shapes=shapes))
