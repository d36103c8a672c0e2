"""Every method on vision transformers, whose features are tokens."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import objectives, optimizers
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import vgg, vit
from jaxdistill.objectives import maps
from jaxdistill.phases import joint, recipes
from jaxdistill.study import registry
from jaxdistill.tasks import classification

TOKENS = (('stem', 'stem'), ('group1', 'group1'))
# These apply other methods, or need more networks.
COMPOSED = (
  *('fixed_backbone', 'from_teacher', 'pruned', 'pruning_protocol'),
  *('snapshots', 'takd', 'distpro', 'regularization_protocol'),
  'supervised_vectors',  # refuses the task of classification at once
)
ARGUMENTS = {
  'distpro_retrain': {'use': 'equal'},
  'joint': {'terms': {}},
  'multi_loss': {'num_stages': 1},
  'sskd': {'num_stages': 1},
}
# What these say of tokens of another width; equal widths work, except below.
REFUSED = {
  'depth_kd': "each pixel has a depth, .* got 'classification'",
  'embedding': r'one vector for each image, got \[5, 4\]',
  'fgd': "objects have boxes, .* got 'classification'",
  'fsp': "equal numbers of channels for FSP, got 4 for 'stem' of the student",
  'ifv': "each pixel has a class, .* got 'classification'",
  'masked_layer': r"equal shapes, got \(5, 4\) for 'stem' of the student",
  'multi_loss': 'expected maps or vectors where shapes differ',
  'neighbourhood': 'two stages of the same name and shape',
  'pixel_kd': "each pixel has a class, .* got 'classification'",
  'sskd': 'expected maps or vectors where shapes differ',
  'student_search': 'network: expected a stage whose module says',
}
NEVER = (
  *('depth_kd', 'embedding', 'fgd', 'ifv', 'neighbourhood', 'pixel_kd'),
  'student_search',
)


@pytest.fixture(scope='module')
def recipe():
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (16, 8, 8, 1), np.uint8)
  label = np.arange(16) % 3
  dataset = arrays.from_arrays(image, label, image, label, validation=8)
  return recipes.recipe(
    dataset,
    classification(),
    epochs=2,
    batch_size=4,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1)),
  )


def transformer(width):
  """Makes two blocks on a class token and 2 x 2 patches."""
  return vit.vit(width, 1, 1, num_classes=3, patch=4)


def convolutional():
  units = [
    Stage('stem', vgg.VGGUnit(4)),
    Stage('group1.block1', vgg.VGGUnit(4)),
    Stage('group1.block2', vgg.VGGUnit(6, pool=True)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(3)),
  ]
  return Network(tuple(units))


NETWORKS = {
  'student': transformer(4),
  'teacher': transformer(6),
  'equal teacher': transformer(4),
  'convolutional': convolutional(),
}


def zeros(tree):
  """Returns arrays of the shapes of a tree."""

  def fill(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.split(jax.random.key(0), x.shape)
    return np.zeros(x.shape, x.dtype)

  return jax.tree.map(fill, tree)


@pytest.fixture(scope='module')
def models(recipe):
  image = {'image': recipe.example['image']}
  return {
    name: Model(network, zeros(graph.variable_shapes(network, image)))
    for name, network in NETWORKS.items()
  }


def trace(method, recipe, carry):
  """Traces one step of each phase of a method, without running it."""
  key = jax.random.key(0)
  for builder in method:
    phase = builder(carry)
    state, frozen = zeros(
      jax.eval_shape(lambda c=carry, i=phase.init: i(key, c))
    )
    batches = {name: zeros(recipe.example) for name in phase.streams}
    jax.eval_shape(
      lambda *args, phase=phase: phase.step(*args, phase.static(0)),
      state,
      frozen,
      batches,
      key,
    )
    carry = phase.finish(state, frozen, carry)


@pytest.mark.parametrize('name', sorted({*registry.METHODS} - {*COMPOSED}))
def test_a_method_works_on_tokens_or_is_refused_before_training(
  name, recipe, models
):
  method = registry.METHODS[name]
  arguments = ARGUMENTS.get(name, {})
  if 'feature_pairs' in inspect.signature(method).parameters:
    arguments = {**arguments, 'feature_pairs': TOKENS}
  phases = method(recipe, **arguments)
  carry = {role: models[role] for role in ('student', 'teacher')}
  if name in REFUSED:
    with pytest.raises(UsageError, match=REFUSED[name]):
      phases[0](carry)
    carry['teacher'] = models['equal teacher']
  if name not in NEVER:
    trace(phases, recipe, carry)


@pytest.mark.parametrize(
  'name', ['ab', 'at', 'fd', 'hint', 'nst', 'ofd', 'reviewkd', 'srrl', 'vid']
)
def test_a_convolutional_student_is_paired_with_the_patches_of_a_transformer(
  name, recipe, models
):
  terms = {name: registry.OBJECTIVES[name]()}
  carry = {'student': models['convolutional'], 'teacher': models['teacher']}
  trace(joint.joint(recipe, terms=terms), recipe, carry)


def test_patches_become_a_square_without_the_class_token():
  x = jnp.arange(2 * 5 * 3.0).reshape(2, 5, 3)
  patches = maps.as_map(x)
  assert patches.shape == (2, 2, 2, 3)
  np.testing.assert_array_equal(patches[1, 1, 0], x[1, 3])
  assert maps.as_map(x[:, 1:]).shape == (2, 2, 2, 3)
  assert maps.as_map(x[:, :3]).shape == (2, 3, 1, 3)
  assert maps.as_map(x[:, 0]).shape == (2, 1, 1, 3)
  assert maps.as_map(patches) is patches


@pytest.mark.parametrize('side', [1, 3, 16, 37])
def test_a_class_token_and_four_registers_are_left_out_of_a_map(side):
  patches = jnp.arange(1.0, side**2 + 1)
  tokens = jnp.concatenate([jnp.zeros(5), patches])[None, :, None]
  expected = patches.reshape(1, side, side, 1)
  np.testing.assert_array_equal(maps.as_map(tokens), expected)


@pytest.mark.parametrize('shape', [(2,), (2, 3, 4, 4, 5)])
def test_a_feature_that_is_no_map_is_named_with_its_shape(shape, recipe):
  shapes = {'group1': jax.ShapeDtypeStruct(shape, np.float32)}
  network = Network((Stage('group1', layers.Pool()),))
  pair = objectives.Pair(network, network, shapes, shapes, recipe)
  message = re.escape(
    "feature_pairs: 'group1': expected a map [B, H, W, C], tokens [B, N, C] or "
    f'a vector [B, C], got the shape {shape}'
  )
  for name in ('at', 'nst', 'hint', 'vid', 'ofd', 'ab', 'ft', 'fd', 'fsp'):
    with pytest.raises(UsageError, match=message):
      getattr(objectives, name)(feature_pairs=(('group1', 'group1'),))(pair)


def test_tokens_that_are_not_a_square_are_paired_with_as_many(recipe):
  def pair(*shapes):
    features = [{'x': jax.ShapeDtypeStruct(s, np.float32)} for s in shapes]
    network = Network((Stage('x', layers.Pool()),))
    return objectives.Pair(network, network, *features, recipe)

  objective = objectives.at(feature_pairs=(('x', 'x'),))
  objective(pair((8, 7, 4), (8, 7, 6)))
  with pytest.raises(UsageError) as caught:
    objective(pair((8, 7, 4), (8, 3, 3, 6)))
  assert str(caught.value) == (
    'feature_pairs: expected as many tokens in both features, or tokens that '
    "are a square of patches, got (7, 4) for 'x' of the student and (3, 3, 6) "
    "for 'x' of the teacher"
  )


@pytest.mark.parametrize('name', ['at', 'nst'])
def test_vectors_have_no_positions_to_compare(name, recipe):
  network = transformer(4)
  pair = objectives.pair_of(network, network, recipe)
  with pytest.raises(UsageError, match=r"got the vector \(4,\) for 'pool'"):
    registry.OBJECTIVES[name](feature_pairs=(('pool', 'pool'),))(pair)


@pytest.mark.parametrize('name', ['fd', 'fsp', 'srrl', 'at'])
def test_networks_without_maps_are_refused_with_their_features(name, recipe):
  stages = (
    Stage('flat', layers.Pool()),
    Stage('hidden', layers.Hidden(4)),
    Stage('head', layers.Classifier(3)),
  )
  pair = objectives.pair_of(Network(stages), Network(stages), recipe)
  with pytest.raises(UsageError, match=r'expected .* hidden'):
    registry.OBJECTIVES[name]()(pair)
