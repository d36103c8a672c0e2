"""DistPro's pathways: their choice, their transforms, and their losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses, objectives
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.methods.distpro import pathways, transforms
from jaxdistill.networks import NETWORKS, graph, layers
from jaxdistill.networks.models import resnet, vit
from jaxdistill.phases import recipes
from jaxdistill.tasks import classification


def pair_of(student, teacher, size=8, channels=1):
  image = np.zeros((8, size, size, channels), np.uint8)
  label = np.arange(8) % 3
  data = arrays.from_arrays(image, label, image, label, validation=0)
  recipe = recipes.recipe(data, classification(), epochs=1, batch_size=4)
  return objectives.pair_of(student, teacher, recipe)


@pytest.fixture(scope='module')
def pair():
  """Wide ResNets with maps of equal sizes; the teacher is twice as wide."""
  return pair_of(
    *(resnet.wide_resnet(10, w, num_classes=3, base_width=2) for w in (1, 2))
  )


def test_the_papers_space_has_27_pathways(pair):
  paths = pathways.all_pairs()(pair)
  assert len(set(paths)) == 27
  keys = [(p.teacher_level, p.student_level, p.transform) for p in paths]
  # They are ordered as alpha[i, j, k], with k changing fastest.
  assert keys[:4] == [(1, 1, 'T1'), (1, 1, 'T2'), (1, 1, 'T3'), (1, 2, 'T1')]
  assert keys[-1] == (3, 3, 'T3')
  assert paths[-1][:2] == ('group3.pre', 'group3.pre')


def test_the_released_space_has_10_pathways(pair):
  paths = pathways.same_or_deeper(stem=True, pool=False)(pair)
  assert len(set(paths)) == 10
  assert {p.teacher for p in paths if p.student == 'stem.pre'} == {'stem.pre'}
  assert all(p.student_level >= p.teacher_level for p in paths)
  assert {p.transform for p in paths} == {'T4'}


@pytest.mark.parametrize(
  ('student', 'teacher'),
  [('mobilenet_v1', 'resnet50'), ('resnet18', 'resnet34')],
)
def test_the_space_of_imagenet_has_15_pathways(student, teacher):
  networks = (NETWORKS[name](num_classes=3) for name in (student, teacher))
  pair = pair_of(*networks, size=64, channels=3)
  paths = pathways.same_or_deeper()(pair)
  assert len(set(paths)) == 15
  # The deepest level is the pooled vector, and maps are paired by size.
  assert paths[-1][:2] == ('pool', 'pool')
  for path in paths:
    if path.student_level == path.teacher_level:
      shape = pair.student_shapes[path.student].shape
      assert shape[1:-1] == pair.teacher_shapes[path.teacher].shape[1:-1]


@pytest.mark.parametrize('name', ['T1', 'T2', 'T3', 'T4', 'tokens'])
@pytest.mark.parametrize(
  'student', [(2, 4, 4, 3), (2, 2, 8, 3), (2, 3), (2, 5, 3)]
)
@pytest.mark.parametrize('teacher', [(4, 2, 5), (1, 1, 5)])
def test_a_transform_gives_the_teachers_shape(name, student, teacher):
  module = transforms.TRANSFORMS[name](teacher)
  x = jax.ShapeDtypeStruct(student, jnp.float32)
  variables = jax.eval_shape(
    lambda rng, x: module.init(rng, x, train=False), jax.random.key(0), x
  )
  output = jax.eval_shape(
    lambda v, x: module.apply(v, x, train=False), variables, x
  )
  assert output.shape == (2, *teacher)


@pytest.mark.parametrize(
  ('size', 'to', 'expected'),
  [
    # The mean of the four quarters, of everything, and of the columns.
    ((4, 4), (2, 2), lambda x: x.reshape(2, 2, 2, 2, 2, 3).mean((2, 4))),
    ((4, 4), (1, 1), lambda x: x.mean((1, 2), keepdims=True)),
    ((2, 4), (4, 1), lambda x: x.mean(2, keepdims=True).repeat(2, 1)),
    ((2, 2), (4, 4), lambda x: x.repeat(2, 1).repeat(2, 2)),
    ((2, 2), (2, 2), lambda x: x),
  ],
)
def test_a_map_shrinks_to_means_and_grows_by_repetition(size, to, expected):
  x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
  resized = transforms._resized(jnp.asarray(x), (*to, 3))
  np.testing.assert_allclose(resized, expected(x), rtol=1e-5)


@pytest.mark.parametrize('name', ['T1', 'T2', 'T3', 'T4', 'tokens'])
def test_every_pixel_counts_in_a_transform_to_a_smaller_map(name):
  module = transforms.TRANSFORMS[name]((1, 1, 2))
  x = jax.random.normal(jax.random.key(1), (1, 4, 4, 3))
  variables = module.init(jax.random.key(0), x, train=False)

  def total(x):
    return (module.apply(variables, x, train=False) ** 2).sum()

  slopes = jnp.abs(jax.grad(total)(x)).sum(-1)
  assert (np.asarray(slopes) > 0).all()


@pytest.mark.parametrize(
  ('name', 'convolutions', 'norms'),
  [
    # From 3 channels to 5, so that m is 3; the attention has 3 parameters.
    ('T1', 3 * 5, 5),
    ('T2', 3 * 3 + 3 + 9 * 3 * 5, 3 + 5),
    ('T3', 3 * 3 + 3 + 9 * 3 * 3 + 9 * 3 * 5, 3 + 3 + 5),
    ('T4', 9 * 3 * 3 + 3 + 9 * 3 * 3 + 9 * 3 * 5, 3 + 3 + 5),
  ],
)
def test_the_transforms_have_the_expected_numbers_of_parameters(
  name, convolutions, norms
):
  module = transforms.TRANSFORMS[name]((8, 8, 5))
  x = jnp.zeros((2, 4, 4, 3))
  variables = jax.eval_shape(
    lambda rng, x: module.init(rng, x, train=False), jax.random.key(0), x
  )
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  assert count == convolutions + 2 * norms


def test_the_inner_channels_are_at_most_512():
  module = transforms.TRANSFORMS['T2']((1, 1, 600))
  x = jax.ShapeDtypeStruct((1, 700), jnp.float32)
  variables = jax.eval_shape(
    lambda rng, x: module.init(rng, x, train=False), jax.random.key(0), x
  )
  assert variables['params']['conv1']['kernel'].shape == (1, 1, 700, 512)


def test_t2_agrees_with_numpy_on_one_pixel():
  """It is in inference mode; only the centre of the 3x3 kernel counts."""
  module = transforms.TRANSFORMS['T2']((1, 1, 2))
  x = jnp.array([[1.0, 2.0]])
  variables = module.init(jax.random.key(0), x, train=False)
  params = jax.tree.map(np.asarray, variables['params'])
  output = module.apply(variables, x, train=False)[:, 0, 0]
  y = np.asarray(x) @ params['conv1']['kernel'][0, 0] / np.sqrt(1 + 1e-5)
  y = y * (y @ params['attention']['kernel'][0, 0])
  y = y @ params['conv3']['kernel'][1, 1] / np.sqrt(1 + 1e-5)
  np.testing.assert_allclose(output, y, rtol=1e-5)


def test_transformers_have_pathways_between_tokens():
  networks = (vit.vit(width, 2, 1, num_classes=3, patch=4) for width in (4, 6))
  names = ('group1.block1', 'group1.block2', 'pool')
  space = pathways.same_or_deeper(
    transforms=('tokens',), student=names, teacher=names
  )
  pair = pair_of(*networks)
  built = pathways.build(pair, space)
  assert len(built.paths) == 6
  results = _losses(pair, built)
  assert (np.asarray(results[0]) > 0).all()


def test_networks_without_maps_need_the_names_of_their_features():
  stages = (
    Stage('flat', layers.Pool()),
    Stage('hidden', layers.Hidden(4)),
    Stage('head', layers.Classifier(3)),
  )
  networks = Network(stages), Network(stages)
  with pytest.raises(UsageError) as caught:
    pathways.all_pairs(teacher=('hidden',))(pair_of(*networks))
  message = str(caught.value)
  assert message.startswith('space.student: the student has no groups of maps')
  assert 'hidden, ' in message


def _losses(pair, built, active=None):
  """Returns (losses, updates, features, variables), for random features."""
  generator = np.random.default_rng(0)
  features = {
    k: jnp.asarray(generator.normal(size=x.shape), jnp.float32)
    for k, x in objectives.adapter_inputs(pair).items()
    if '/' in k and not k.startswith('batch')
  }
  variables = graph.init(
    built.adapters, jax.random.key(0), objectives.adapter_inputs(pair)
  )

  def compute(variables, features):
    return pathways.losses(built, variables, features, active=active)

  options = {'xla_backend_optimization_level': 0}
  values, updates = jax.jit(compute, compiler_options=options)(
    variables, features
  )
  return values, updates, features, variables


SMALL = pathways.all_pairs(
  transforms=('T1',),
  student=('group1.pre', 'group3.pre'),
  teacher=('group3.pre', 'stem'),
)


def test_each_pathway_has_the_loss_that_it_has_alone(pair):
  built = pathways.build(pair, SMALL)
  values, updates, features, variables = _losses(pair, built)
  outputs, _ = graph.run(built.adapters, variables, features, train=True)
  for i, path in enumerate(built.paths):
    target = features[f'teacher/{path.teacher}']
    alone = losses.hierarchical_context_loss(outputs[f'pathway{i}'], target)
    np.testing.assert_allclose(values[i], alone.mean(), rtol=1e-5)
  assert set(updates['batch_stats']) == {f'pathway{i}' for i in range(4)}


def test_a_dropped_pathway_has_no_loss_and_no_statistics(pair):
  built = pathways.build(pair, SMALL)
  whole, _, _, _ = _losses(pair, built)
  values, updates, _, _ = _losses(pair, built, active=(0, 3))
  np.testing.assert_allclose(values, [whole[0], 0, 0, whole[3]], rtol=1e-6)
  assert set(updates['batch_stats']) == {'pathway0', 'pathway3'}
  none, updates, _, _ = _losses(pair, built, active=())
  np.testing.assert_array_equal(none, np.zeros(4))
  assert updates == {}


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda: pathways.all_pairs(transforms=('T9',)), "unknown transform 'T9'"),
    (lambda: pathways.all_pairs(transforms='T1'), "a list of names, got 'T1'"),
    (lambda: pathways.all_pairs(transforms=()), 'a list of names, got ()'),
    (
      lambda: pathways.all_pairs(student=('group9',)),
      "student feature 'group9'",
    ),
    (
      lambda: pathways.same_or_deeper(teacher=('group9',)),
      "teacher feature 'group9'",
    ),
    (lambda: lambda pair: (), 'space: expected at least one pathway'),
  ],
)
def test_an_invalid_space_is_refused(make, words, pair):
  with pytest.raises(UsageError) as caught:
    pathways.build(pair, make())
  assert words in str(caught.value)
