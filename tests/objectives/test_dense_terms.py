"""Objectives that compare maps, on a pair of networks for segmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import losses, objectives
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import dense_heads
from jaxdistill.phases import joint
from jaxdistill.study import registry
from jaxdistill.tasks import classification, depth, segmentation

WEIGHTS = {'pixel_kd': 10 / 19, 'cwd': 5.0, 'ifv': 200.0, 'pairwise': 10.0}
RNG = np.random.default_rng(0)


def tiny(width, head, **keys):
  groups = (
    jd.Stage('stem', layers.ConvUnit(width, stride=2)),
    jd.Stage('group1.block1', layers.ConvUnit(2 * width)),
  )
  network = jd.Network((*groups, jd.Stage('pool', layers.Pool())))
  return head(network, num_classes=3, dropout=0.0, **keys)


@pytest.fixture(scope='module')
def recipe():
  columns = {
    'image': RNG.integers(0, 256, (8, 8, 8, 3), np.uint8),
    'mask': RNG.integers(0, 3, (8, 8, 8)).astype(np.uint8),
  }
  data = jd.data.from_columns(
    columns, columns, validation=0, label_names=('a', 'b', 'c')
  )
  return jd.recipe(data, segmentation(), epochs=1, batch_size=4)


@pytest.fixture(scope='module')
def pair(recipe):
  teacher = tiny(3, dense_heads.psp, sizes=(1, 2), auxiliary=True)
  return objectives.pair_of(tiny(2, dense_heads.fcn), teacher, recipe)


@pytest.fixture(scope='module')
def features(pair):
  """Random features in place of those that the networks compute."""
  shapes = objectives.adapter_inputs(pair)
  return {
    name: jnp.asarray(RNG.normal(size=x.shape), jnp.float32)
    for name, x in shapes.items()
    if not name.startswith('batch')
  }


BATCH = {'mask': RNG.integers(0, 3, (4, 8, 8)).astype(np.uint8)}


def loss_of(objective, pair, features):
  term = objective(pair)
  return jax.jit(lambda features: term.loss(features, BATCH, {}))(features)


def test_each_objective_has_its_published_weight(pair):
  weights = {name: registry.OBJECTIVES[name]()(pair).weight for name in WEIGHTS}
  assert weights == WEIGHTS


def test_outputs_are_compared_by_pixel_and_by_channel(pair, features):
  heads = features['student/head'], features['teacher/head']
  np.testing.assert_allclose(
    loss_of(objectives.pixel_kd(temperature=2.0), pair, features),
    losses.pixel_soft_target_loss(*heads, BATCH['mask'], temperature=2.0),
    rtol=1e-5,
  )
  # The adapter of equal shapes has nothing to change.
  np.testing.assert_allclose(
    loss_of(objectives.cwd(), pair, {**features, 'cwd0': heads[0]}),
    losses.channel_wise_loss(*heads),
    rtol=1e-5,
  )


def test_maps_before_the_heads_are_compared_by_class_and_by_pair(
  pair, features
):
  maps = features['student/group1'], features['teacher/pyramid']
  np.testing.assert_allclose(
    loss_of(objectives.ifv(), pair, features),
    losses.intra_class_variation_loss(*maps, BATCH['mask'], num_classes=3),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    loss_of(objectives.pairwise(nodes=2), pair, features),
    losses.pairwise_similarity_loss(*maps, nodes=2),
    rtol=1e-5,
  )


def test_features_of_other_channels_get_an_adapter(pair):
  term = objectives.cwd(feature_pairs=(('stem', 'group1'),))(pair)
  shapes = graph.shapes(
    jd.Network(term.adapters), objectives.adapter_inputs(pair)
  )
  assert shapes['cwd0'].shape == pair.teacher_shapes['group1'].shape


def test_all_objectives_train_together(pair, recipe):
  terms = {name: registry.OBJECTIVES[name]() for name in WEIGHTS}
  networks = {'student': pair.student, 'teacher': pair.teacher}

  def metrics(rng):
    image = {'image': recipe.example['image']}
    carry = {
      role: Model(network, graph.init(network, rng, image))
      for role, network in networks.items()
    }
    phase = joint.joint(recipe, terms=terms)[0](carry)
    state, frozen = phase.init(rng, carry)
    batch = {k: jnp.zeros(x.shape, x.dtype) for k, x in recipe.example.items()}
    return phase.step(state, frozen, {'train': batch}, rng, None)[1]

  shapes = jax.eval_shape(metrics, jax.random.key(0))
  assert set(WEIGHTS) <= set(shapes)
  assert all(x.shape == () for x in shapes.values())


@pytest.mark.parametrize('name', ['pixel_kd', 'ifv'])
@pytest.mark.parametrize('task', [classification, depth])
def test_objectives_that_need_masks_refuse_other_tasks(name, task, pair):
  other = pair._replace(recipe=pair.recipe._replace(task=task()))
  match = f'{name}: .*segmentation.*got .{task.__name__}'
  with pytest.raises(UsageError, match=match):
    registry.OBJECTIVES[name]()(other)


def test_depths_are_compared_for_the_task_of_depths_only(pair, features):
  objective = objectives.depth_kd(weight=2.0)
  with pytest.raises(UsageError, match=r"depth_kd: .* got 'segmentation'"):
    objective(pair)
  other = pair._replace(recipe=pair.recipe._replace(task=depth()))
  assert objective(other).weight == 2.0
  heads = features['student/head'], features['teacher/head']
  np.testing.assert_allclose(
    loss_of(objective, other, features),
    losses.map_absolute_error(*heads),
    rtol=1e-5,
  )


def test_a_vector_has_no_places_to_compare(pair):
  shapes = {'pool': jax.ShapeDtypeStruct((4, 3), jnp.float32)}
  vectors = pair._replace(
    student_shapes={**pair.student_shapes, **shapes},
    teacher_shapes={**pair.teacher_shapes, **shapes},
  )
  for name in ('cwd', 'ifv', 'pairwise'):
    objective = registry.OBJECTIVES[name](feature_pairs=(('pool', 'pool'),))
    with pytest.raises(UsageError, match='expected maps or tokens'):
      objective(vectors)
