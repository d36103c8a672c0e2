"""Arguments of architectures: invalid ones are refused, widths respected."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import layers


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
    # The number of entries is not that of the groups.
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
    # Blocks would have no channels, or a fraction of one.
    ('cifar_resnet', {'depth': 8, 'inner_widths': (4, 0, 4)}),
    ('cifar_resnet', {'depth': 8, 'inner_widths': (4, 2.5, 4)}),
    ('cifar_resnet', {'widths': (0, 0, 0)}),
    ('imagenet_resnet', {'depth': 50, 'inner_widths': [(4, 0)] * 16}),
    ('imagenet_resnet', {'depth': 50, 'inner_widths': [(4, 4, 4)] * 16}),
    ('imagenet_resnet', {'inner_widths': [(4, 4)] * 8}),
    ('cifar_densenet', {'depth': 7, 'growths': (0, 4, 4)}),
    ('cifar_vgg', {'widths': (0,) * 10}),
    # The arguments do not fit together.
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
def test_an_invalid_argument_is_a_usage_error(name, arguments):
  with pytest.raises(UsageError):
    networks.NETWORKS[name](**arguments)


def test_a_pooled_shortcut_averages_patches_and_appends_zeros():
  image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
  pooled = layers.pool_and_pad(image, 2, 2)
  np.testing.assert_allclose(pooled[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
  np.testing.assert_array_equal(pooled[..., 1], np.zeros((1, 2, 2)))
  # Of 3 x 3 pixels, patches at the edge have two, the one in the corner one.
  odd = layers.pool_and_pad(image[:, :3, :3], 1, 2)
  np.testing.assert_allclose(odd[0, :, :, 0], [[2.5, 4], [8.5, 10]])


def test_numpy_numbers_make_the_same_network():
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
    assert json.dumps(networks.to_description(counted))


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
def test_stems_and_groups_have_the_requested_widths(name, arguments, expected):
  network = networks.NETWORKS[name](**arguments)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  features = networks.shapes(network, {'image': image})
  assert {f: features[f].shape[-1] for f in expected} == expected
