"""Properties that a narrow variant of every family of networks has."""

import itertools
import json

import jax
import jax.numpy as jnp
import pytest

from jaxdistill import networks
from jaxdistill.core.types import Network
from jaxdistill.networks import graph, layers

# Name -> (arguments, size of the image, features that must exist).
FAMILIES = {
  'cifar_resnet': (
    {'depth': 14, 'stem_width': 4, 'widths': (4, 6, 8)},
    8,
    ('group1.pre', 'group1.block1.pre', 'group3.pre'),
  ),
  'cifar_resnet A': (
    {'depth': 8, 'stem_width': 4, 'widths': (4, 6, 8), 'shortcut': 'A'},
    8,
    ('group3.pre',),
  ),
  'wide_resnet': (
    {'depth': 16, 'width': 1, 'base_width': 4, 'dropout': 0.3},
    8,
    ('stem.pre', 'group1.pre', 'group3.pre'),
  ),
  'preactivation_resnet': (
    {'depth': 20, 'stem_width': 4, 'widths': (2, 3, 4), 'scale': 0.5},
    8,
    ('stem.pre', 'group1.pre', 'group3.pre'),
  ),
  'imagenet_resnet': (
    {'depth': 18, 'stem_width': 4, 'widths': (4, 4, 6, 8)},
    32,
    ('stem.pre', 'group4.pre'),
  ),
  'imagenet_resnet deep': (
    {
      'depth': 50,
      'stem': 'cifar',
      'stem_width': 4,
      'widths': (2, 3, 4, 5),
      'inner_widths': (2, (3, 2), *[2] * 14),
    },
    8,
    ('stem.pre', 'group4.pre'),
  ),
  'cifar_vgg': ({'depth': 11, 'width': 1 / 32}, 16, ('group5.pre',)),
  'imagenet_vgg': (
    {'depth': 11, 'width': 1 / 32, 'hidden_width': 8},
    32,
    ('group5.pre', 'hidden1.pre'),
  ),
  'mobilenet_v1': ({'width': 1 / 16}, 32, ('group5.pre',)),
  'mobilenet_v2': ({'width': 0.1, 'last_width': 8}, 32, ('last.pre',)),
  'cifar_mobilenet_v2': ({'width': 0.2, 'last_width': 8}, 16, ('group7',)),
  'mobilenet_v3_small': ({'width': 0.1, 'hidden_width': 8}, 32, ('last.pre',)),
  'efficientnet_b0': ({'width': 0.1, 'last_width': 8}, 32, ('last.pre',)),
  'cifar_shufflenet_v1': (
    {'stem_width': 12, 'widths': (24, 48, 96)},
    16,
    ('group1.block1.pre', 'group3.pre'),
  ),
  'cifar_shufflenet_v2': (
    {'stem_width': 4, 'widths': (8, 12, 16), 'last_width': 8},
    16,
    ('group3.pre',),
  ),
  'shufflenet_v2': (
    {'stem_width': 4, 'widths': (8, 12, 16), 'last_width': 8},
    32,
    ('group3.pre',),
  ),
  'cifar_densenet': ({'depth': 10, 'growth': 2}, 8, ('group3.pre',)),
  'densenet121': ({'growth': 2}, 32, ('stem.pre', 'group4.pre')),
  'pyramidnet': (
    {'depth': 20, 'widening': 6, 'stem_width': 4, 'shake_drop': 0.5},
    8,
    ('stem.pre', 'group1.pre', 'group3.pre'),
  ),
  'pyramidnet basic': (
    {'depth': 14, 'widening': 6, 'bottleneck': False},
    7,
    ('group3.pre',),
  ),
  'convnext': (
    {'blocks': (1, 2), 'widths': (4, 6), 'patch': 2, 'drop_path': 0.2},
    8,
    ('group1', 'transition1'),
  ),
  'efficientnet_lite': ({'width': 0.1, 'last_width': 8}, 32, ('last.pre',)),
  'vit rotary': (
    {'width': 8, 'depth': 3, 'heads': 2, 'patch': 4, 'positions': 'rotary'}
    | {'registers': 2, 'layer_scale': 1.0, 'key_bias': False}
    | {'pool': 'class_mean'},
    8,
    ('group1', 'pool.tokens'),
  ),
  'vit attention': (
    {'width': 8, 'depth': 3, 'heads': 2, 'patch': 4, 'class_token': False}
    | {'pool': 'attention', 'image_size': 12, 'first_norm': True},
    8,
    ('group1', 'pool.tokens'),
  ),
  'vit': (
    {'width': 8, 'depth': 3, 'heads': 2, 'patch': 4, 'drop_path': 0.2},
    8,
    ('group1',),
  ),
}


@pytest.fixture(autouse=True, scope='module')
def zero_kernels():
  """Makes kernels zero: random numbers take long to trace, and are not read."""
  with pytest.MonkeyPatch.context() as patch:
    zeros = dict.fromkeys(layers.KERNELS, jax.nn.initializers.zeros)
    patch.setattr(layers, 'KERNELS', zeros)
    yield


def make(name):
  arguments, size, taps = FAMILIES[name]
  network = networks.NETWORKS[name.partition(' ')[0]](
    num_classes=7, **arguments
  )
  image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  return network, {'image': image}, taps


@pytest.fixture(scope='module')
def shapes_of(zero_kernels):
  """A function: name -> (network, shapes of its variables and features)."""
  results = {}

  def compute(name):
    if name not in results:
      network, features, _ = make(name)

      def full_pass(rng, features):
        variables = networks.init(network, rng, features)
        return variables, networks.run(network, variables, features)[0]

      variables, shapes = jax.eval_shape(full_pass, jax.random.key(0), features)
      results[name] = network, variables, shapes
    return results[name]

  return compute


@pytest.mark.parametrize('name', FAMILIES)
def test_the_features_of_groups_and_inside_them_exist(name, shapes_of):
  _, _, features = shapes_of(name)
  assert {'group1', 'pool', 'head', *FAMILIES[name][2]} <= set(features)
  assert features['head'].shape == (2, 7)
  assert features['pool'].ndim == 2


@pytest.mark.parametrize('name', FAMILIES)
def test_running_in_two_pieces_is_the_same_program_as_running_whole(
  name, shapes_of
):
  network, variables, features = shapes_of(name)
  groups = [g for g in graph.groups(network) if g.startswith('group')]
  border = groups[len(groups) // 2] if groups[1:] else 'group1.block2'
  first = networks.stages_between(network, 'image', border)
  second = networks.stages_between(network, border, 'head')
  kept = [f for f in features if f != 'image']

  def whole(variables, image, rng):
    outputs, updates = networks.run(
      network, variables, {'image': image}, train=True, rngs={'dropout': rng}
    )
    return [outputs[f] for f in kept], updates

  def pieces(variables, image, rng):
    one, before = networks.run(
      network,
      variables,
      {'image': image},
      only=first,
      train=True,
      rngs={'dropout': rng},
    )
    two, after = networks.run(
      network,
      variables,
      {border: one[border]},
      only=second,
      train=True,
      rngs={'dropout': rng},
    )
    outputs = {**one, **two}
    return [outputs[f] for f in kept], graph.merge(before, after)

  arguments = (variables, features['image'], jax.random.key(0))
  assert str(jax.make_jaxpr(whole)(*arguments)) == str(
    jax.make_jaxpr(pieces)(*arguments)
  )


def preserving(network, features):
  """Returns the blocks whose output has the shape of their input."""
  names = ['image', *graph.stage_names(network)]
  return [
    name
    for before, name in itertools.pairwise(names)
    if '.' in name and features[before].shape == features[name].shape
  ]


# Family -> groups -> their blocks whose output has the shape of their input.
_FIRST = {1: (1, 2), 2: (2,), 3: (2,)}
_FOUR = {1: (2, 3), 2: (2, 3, 4), 3: (2, 3, 4, 5, 6), 4: (2, 3)}
_SHUFFLE = {1: (2, 3, 4), 2: (2, 3, 4, 5, 6, 7, 8), 3: (2, 3, 4)}
_MOBILE = {2: (2,), 3: (2, 3), 4: (2, 3, 4), 5: (2, 3), 6: (2, 3)}
DELETABLE = {
  'cifar_resnet': _FIRST,
  'cifar_resnet A': {1: (1,)},
  'wide_resnet': _FIRST,
  'preactivation_resnet': {1: (2,), 2: (2,), 3: (2,)},
  'imagenet_resnet': {**_FIRST, 4: (2,)},
  'imagenet_resnet deep': _FOUR,
  'cifar_vgg': {3: (2,), 4: (2,), 5: (1, 2)},
  'imagenet_vgg': {3: (2,), 4: (2,), 5: (2,)},
  'mobilenet_v1': {2: (2,), 3: (2,), 4: (2, 3, 4, 5, 6), 5: (2,)},
  # In a network this narrow, the stem is as wide as the first group.
  'mobilenet_v2': {1: (1,), **_MOBILE},
  'cifar_mobilenet_v2': _MOBILE,
  'mobilenet_v3_small': {2: (2,), 3: (2, 3, 4, 5), 4: (2, 3)},
  'efficientnet_b0': {
    **{1: (1,), 2: (2,), 3: (2,), 4: (2, 3), 5: (2, 3)},
    6: (2, 3, 4),
  },
  'cifar_shufflenet_v1': _SHUFFLE,
  'cifar_shufflenet_v2': _SHUFFLE,
  'shufflenet_v2': _SHUFFLE,
  # Every block of these has more channels than the one before.
  'cifar_densenet': {},
  'densenet121': {},
  'pyramidnet': {},
  'pyramidnet basic': {},
  'convnext': {1: (1,), 2: (1, 2)},
  'efficientnet_lite': {
    **{1: (), 2: (2,), 3: (2,), 4: (2, 3), 5: (2, 3)},
    6: (2, 3, 4),
  },
  'vit rotary': {1: (1, 2, 3)},
  'vit attention': {1: (1, 2, 3)},
  'vit': {1: (1, 2, 3)},
}


@pytest.mark.parametrize('name', FAMILIES)
def test_blocks_that_keep_the_shape_can_be_deleted(name, shapes_of):
  network, variables, features = shapes_of(name)
  deleted = preserving(network, features)
  kind = 'conv' if 'vgg' in name else 'block'
  assert deleted == [
    f'group{g}.{kind}{b}'
    for g, blocks in DELETABLE[name].items()
    for b in blocks
  ]
  stages = tuple(s for s in network.stages if s.name not in deleted)

  def run(variables, image):
    return networks.apply(Network(stages), variables, image)

  logits = jax.eval_shape(run, variables, features['image'])
  assert logits.shape == (2, 7)


def test_the_deletable_blocks_of_mobile_networks_are_the_known_ones():
  def deletable(name, size):
    network = networks.NETWORKS[name]()
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    features = networks.shapes(network, {'image': image})
    blocks = [n for n in graph.stage_names(network) if '.' in n]
    names = preserving(network, features)
    return [blocks.index(name) + 1 for name in names]

  assert deletable('mobilenet_v3_small', 32) == [3, 5, 6, 8, 10, 11]
  assert deletable('efficientnet_b0', 32) == [3, 5, 7, 8, 10, 11, 13, 14, 15]


@pytest.mark.parametrize('name', FAMILIES)
def test_a_network_is_rebuilt_from_its_description(name):
  network, _, _ = make(name)
  text = json.dumps(networks.to_description(network))
  again = networks.from_description(json.loads(text))
  assert again == network
  assert hash(again) == hash(network)


@pytest.mark.parametrize(
  'name',
  # One for each kind of block.
  [
    'cifar_resnet',
    'wide_resnet',
    'preactivation_resnet',
    'imagenet_resnet deep',
    'imagenet_vgg',
    'mobilenet_v1',
    'mobilenet_v3_small',
    'cifar_shufflenet_v1',
    'cifar_shufflenet_v2',
    'cifar_densenet',
    'pyramidnet basic',
    'vit',
  ],
)
def test_logits_and_parameters_stay_in_float32_under_bfloat16(name):
  arguments, size, _ = FAMILIES[name]
  network = networks.NETWORKS[name.partition(' ')[0]](
    dtype='bfloat16', **arguments
  )

  def full_pass(rng, image):
    variables = networks.init(network, rng, {'image': image})
    return variables, networks.run(network, variables, {'image': image})[0]

  image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  variables, features = jax.eval_shape(full_pass, jax.random.key(0), image)
  dtypes = {str(x.dtype) for x in jax.tree.leaves(variables)}
  assert dtypes == {'float32'}
  assert features['head'].dtype == jnp.float32
  assert features['group1'].dtype == jnp.bfloat16
