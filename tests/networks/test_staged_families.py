"""Laws that hold for narrow variants of every family of networks."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.networks import layers, staged
from jaxdistill.types import Network, UsageError

# Name -> (network, arguments, size of the image, features that must be there).
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
  'vit': (
    {'width': 8, 'depth': 3, 'heads': 2, 'patch': 4, 'drop_path': 0.2},
    8,
    ('group1',),
  ),
}


@pytest.fixture(autouse=True, scope='module')
def zero_kernels():
  """Random numbers take most of the time to trace; nobody reads them here."""
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
  """Name -> (network, shapes of its variables and of its features)."""
  found = {}

  def compute(name):
    if name not in found:
      network, features, _ = make(name)

      def full_pass(rng, features):
        variables = networks.init(network, rng, features)
        return variables, networks.run(network, variables, features)[0]

      variables, shapes = jax.eval_shape(full_pass, jax.random.key(0), features)
      found[name] = network, variables, shapes
    return found[name]

  return compute


@pytest.mark.parametrize('name', FAMILIES)
def test_groups_and_taps_are_there(name, shapes_of):
  _, _, features = shapes_of(name)
  assert {'group1', 'pool', 'head', *FAMILIES[name][2]} <= set(features)
  assert features['head'].shape == (2, 7)
  assert features['pool'].ndim == 2


@pytest.mark.parametrize('name', FAMILIES)
def test_pieces_are_the_same_program_as_the_whole(name, shapes_of):
  network, variables, features = shapes_of(name)
  groups = [g for g in staged.groups(network) if g.startswith('group')]
  border = groups[len(groups) // 2] if groups[1:] else 'group1.block2'
  first = networks.stages_between(network, 'image', border)
  rest = networks.stages_between(network, border, 'head')
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
      only=rest,
      train=True,
      rngs={'dropout': rng},
    )
    outputs = {**one, **two}
    return [outputs[f] for f in kept], staged.merge(before, after)

  arguments = (variables, features['image'], jax.random.key(0))
  assert str(jax.make_jaxpr(whole)(*arguments)) == str(
    jax.make_jaxpr(pieces)(*arguments)
  )


def preserving(network, features):
  """Blocks whose output has the shape of their input."""
  names = ['image', *staged.stage_names(network)]
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
  # This narrow, the stem is no wider than the first group.
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
  'vit': {1: (1, 2, 3)},
}


@pytest.mark.parametrize('name', FAMILIES)
def test_blocks_that_keep_the_shape_can_be_deleted(name, shapes_of):
  network, variables, features = shapes_of(name)
  deleted = preserving(network, features)
  kind = 'conv' if 'vgg' in name else 'block'
  assert deleted == [
    f'group{g}.{kind}{b}' for g, own in DELETABLE[name].items() for b in own
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
    blocks = [n for n in staged.stage_names(network) if '.' in n]
    names = preserving(network, features)
    return [blocks.index(name) + 1 for name in names]

  assert deletable('mobilenet_v3_small', 32) == [3, 5, 6, 8, 10, 11]
  assert deletable('efficientnet_b0', 32) == [3, 5, 7, 8, 10, 11, 13, 14, 15]


@pytest.mark.parametrize('name', FAMILIES)
def test_a_network_comes_back_from_its_json(name):
  network, _, _ = make(name)
  spec = json.loads(json.dumps(networks.to_spec(network)))
  again = networks.from_spec(spec)
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


@pytest.mark.parametrize(
  ('name', 'arguments'),
  [
    ('imagenet_resnet', {'depth': 19}),
    ('imagenet_resnet', {'stem': 'large'}),
    ('shufflenet_v2', {'stem': 'large'}),
    ('densenet121', {'stem': 'large'}),
    ('densenet121', {'strides': (2, 2)}),
    ('cifar_densenet', {'depth': 41}),
    ('preactivation_resnet', {'depth': 57}),
    ('pyramidnet', {'depth': 111}),
    ('imagenet_vgg', {'depth': 12}),
    ('vit', {'heads': 7}),
    ('vit', {'heads': 0}),
    ('wide_resnet', {'width': 0}),
    ('mobilenet_v2', {'inner_widths': (8, 8)}),
    # More or fewer numbers than there are groups.
    ('cifar_resnet', {'strides': (1, 2)}),
    ('cifar_resnet', {'widths': (16, 32, 64, 64)}),
    ('wide_resnet', {'strides': (1, 2)}),
    ('imagenet_resnet', {'strides': (1, 2, 2)}),
    ('preactivation_resnet', {'widths': (16, 32)}),
    ('pyramidnet', {'strides': (1, 2)}),
    ('pyramidnet', {'strides': (1, 2, 2, 2)}),
    ('mobilenet_v1', {'strides': (1, 2)}),
    ('mobilenet_v2', {'strides': (1, 2)}),
    ('mobilenet_v3_small', {'strides': (1, 2)}),
    ('efficientnet_b0', {'widths': (16, 24)}),
    ('cifar_shufflenet_v1', {'blocks': (4, 8)}),
    ('shufflenet_v2', {'strides': (1, 2)}),
    ('cifar_vgg', {'pools': (True,) * 3}),
    ('cifar_vgg', {'pools': (True,) * 5}),
    ('imagenet_vgg', {'pools': (True,) * 4}),
    # Blocks without channels, and what is no number.
    ('cifar_resnet', {'depth': 8, 'inner_widths': (4, 0, 4)}),
    ('cifar_resnet', {'depth': 8, 'inner_widths': (4, 2.5, 4)}),
    ('cifar_resnet', {'widths': (0, 0, 0)}),
    ('imagenet_resnet', {'depth': 50, 'inner_widths': [(4, 0)] * 16}),
    ('imagenet_resnet', {'depth': 50, 'inner_widths': [(4, 4, 4)] * 16}),
    ('imagenet_resnet', {'inner_widths': [(4, 4)] * 8}),
    ('cifar_densenet', {'depth': 7, 'growths': (0, 4, 4)}),
    ('cifar_vgg', {'widths': (0,) * 10}),
    # What does not fit together.
    ('cifar_resnet', {'shortcut': 'A', 'widths': (16, 8, 64)}),
    ('cifar_resnet', {'shortcut': 'pool', 'stem_width': 32}),
    ('cifar_resnet', {'shortcut': 'C'}),
    ('pyramidnet', {'widening': -8}),
    ('mobilenet_v2', {'inner_widths': (8, *[96] * 16)}),
    ('mobilenet_v3_small', {'inner_widths': (8, *[96] * 10)}),
    ('efficientnet_b0', {'inner_widths': (8, *[96] * 15)}),
    ('cifar_shufflenet_v1', {'groups': 4}),
    ('cifar_shufflenet_v1', {'stem_width': 240}),
    ('shufflenet_v2', {'widths': (15, 20, 30)}),
    ('imagenet_vgg', {'depth': 8}),
  ],
)
def test_a_wrong_choice_is_a_usage_error(name, arguments):
  with pytest.raises(UsageError):
    networks.NETWORKS[name](**arguments)


def test_a_pooled_shortcut_averages_patches_and_adds_zero_channels():
  image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
  found = layers.pool_and_pad(image, 2, 2)
  np.testing.assert_allclose(found[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
  np.testing.assert_array_equal(found[..., 1], np.zeros((1, 2, 2)))
  # 3 x 3: of the last column and row there are two pixels, of the corner one.
  odd = layers.pool_and_pad(image[:, :3, :3], 1, 2)
  np.testing.assert_allclose(odd[0, :, :, 0], [[2.5, 4], [8.5, 10]])


def test_numpys_numbers_are_as_good_as_others():
  for name, arguments in (
    ('cifar_resnet', {'depth': 8, 'inner_widths': (3, 4, 5)}),
    ('imagenet_resnet', {'depth': 50, 'inner_widths': (2,) * 16}),
    (
      'preactivation_resnet',
      {'depth': 11, 'inner_widths': ((2, 3), (3, 4), (4, 5))},
    ),
    ('cifar_vgg', {'depth': 8, 'widths': (2, 3, 4, 5, 6)}),
    ('cifar_densenet', {'depth': 7, 'growths': (2, 3, 4)}),
    ('mobilenet_v2', {'inner_widths': (32,) * 17, 'stem_width': 32}),
  ):
    plain = networks.NETWORKS[name](**arguments)
    counted = networks.NETWORKS[name](
      **{
        k: v if k == 'depth' else np.array(v)[()] for k, v in arguments.items()
      }
    )
    assert counted == plain
    assert json.dumps(networks.to_spec(counted))


@pytest.mark.parametrize(
  ('name', 'arguments', 'expected'),
  [
    (
      'mobilenet_v1',
      {'stem_width': 5, 'widths': range(2, 15)},
      {'stem': 5, 'group1': 2, 'group5': 14},
    ),
    (
      'mobilenet_v2',
      {'width': 0.1, 'stem_width': 5, 'widths': range(2, 9)},
      {'stem': 5, 'group1': 2, 'group7': 8},
    ),
    (
      'cifar_mobilenet_v2',
      {'width': 0.1, 'stem_width': 5, 'widths': range(2, 9)},
      {'stem': 5, 'group1': 2, 'group7': 8},
    ),
    (
      'mobilenet_v3_small',
      {'width': 0.1, 'stem_width': 5, 'widths': range(2, 13)},
      {'stem': 5, 'group1': 2, 'group4': 12, 'last': 72},
    ),
    (
      'efficientnet_b0',
      {'width': 0.1, 'stem_width': 5, 'widths': range(2, 9)},
      {'stem': 5, 'group1': 2, 'group7': 8},
    ),
  ],
)
def test_stems_and_groups_are_as_wide_as_asked(name, arguments, expected):
  network = networks.NETWORKS[name](**arguments)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  features = networks.shapes(network, {'image': image})
  assert {f: features[f].shape[-1] for f in expected} == expected
