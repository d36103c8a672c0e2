"""Residual blocks split into layers, narrowed, or followed by noise."""

import jax
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks import graph, summary
from jaxdistill.networks.surgery import layerwise, narrowing, noisy

SMALL = {'num_classes': 3, 'stem_width': 2, 'widths': (2, 3, 4)}


def _model(network, size=8):
  image = {'image': np.zeros((2, size, size, 3), np.float32)}
  variables = graph.init(network, jax.random.key(0), image)
  # With random statistics and biases, misplaced ones change the output.
  noise = jax.tree.map(
    lambda x: (
      x + 0.1 * np.random.default_rng(x.size).random(x.shape, np.float32)
    ),
    variables,
  )
  return Model(network, noise)


def _first_groups(network):
  """The network with its stem, one block of each kind and the head."""
  names = ('stem', 'group1.block1', 'group1.block2', 'group2.block1')
  kept = tuple(s for s in network.stages if s.name in (*names, 'pool', 'head'))
  return network._replace(stages=kept)


@pytest.mark.parametrize(
  'network',
  [
    networks.NETWORKS['resnet8'](**SMALL),
    networks.NETWORKS['resnet8'](**SMALL, shortcut='A'),
    networks.NETWORKS['resnet8'](**SMALL, shortcut='pool'),
    _first_groups(
      networks.NETWORKS['cifar_resnet50'](
        num_classes=3, stem_width=2, widths=(2, 2, 2, 2)
      )
    ),
  ],
  ids=['projections', 'subsampled', 'pooled', 'bottlenecks'],
)
def test_the_layers_of_blocks_compute_what_the_blocks_compute(network):
  model = _model(network)
  layered = layerwise.by_layers(model)
  image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
  np.testing.assert_array_equal(
    graph.apply(*layered, image), graph.apply(*model, image)
  )
  assert networks.count_parameters(
    layered.variables
  ) == networks.count_parameters(model.variables)
  # Every stage except the head has one convolution.
  for name, tree in layered.variables['params'].items():
    kernels = [x for x in jax.tree.leaves(tree) if x.ndim == 4]
    assert len(kernels) == (name != 'head')
  described = networks.to_description(layered.network)
  assert networks.from_description(described) == layered.network


def _count(network, size):
  return summary(network, (size, size, 3)).parameters


@pytest.mark.parametrize(
  ('multiplier', 'printed'),  # in thousands, in Table 1
  [
    *((1, 269), (0.9, 239), (0.8, 213), (0.75, 202)),
    *((0.6, 160), (0.5, 136), (0.4, 105)),
  ],
)
def test_a_narrowed_resnet20_has_the_parameters_of_table_1(multiplier, printed):
  network = networks.NETWORKS['resnet20'](shortcut='A')
  network = narrowing.narrowed(network, multiplier=multiplier)
  assert abs(_count(network, 32) / 1000 - printed) < 1


@pytest.mark.parametrize(
  ('multiplier', 'inner_after', 'printed'),  # in millions, in Table 2
  [(0.75, True, 18), (0.75, False, 21), (0.5, False, 17)],
)
def test_a_narrowed_resnet50_has_the_parameters_of_table_2(
  multiplier, inner_after, printed
):
  network = narrowing.narrowed(
    networks.NETWORKS['resnet50'](),
    multiplier=multiplier,
    inner_after=inner_after,
  )
  assert _count(network, 64) // 10**6 == printed


@pytest.mark.parametrize(
  ('name', 'multiplier', 'message'),
  [
    ('resnet8', 0.1, "multiplier: 0.1 leaves 'group1.block1' none of its 2"),
    ('resnet8', 0.0, r'multiplier: expected a number in \(0, 1\], got 0.0'),
    ('resnet8', 1.5, 'multiplier: expected a number in .*, got 1.5'),
    ('vgg8', 0.5, 'network: expected a stage whose module says'),
  ],
)
def test_a_network_that_cannot_be_narrowed_so_far_is_refused(
  name, multiplier, message
):
  arguments = SMALL if name == 'resnet8' else {}
  network = networks.NETWORKS[name](**arguments)
  with pytest.raises(UsageError, match=message):
    narrowing.narrowed(network, multiplier=multiplier)


def test_a_noisy_network_differs_from_the_plain_one_only_in_training():
  plain = networks.NETWORKS['resnet8'](**SMALL)
  network = noisy.noisy(plain, sigma=0.5)
  model = _model(plain)
  image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
  np.testing.assert_array_equal(
    graph.apply(network, model.variables, image), graph.apply(*model, image)
  )
  features, _ = graph.run(
    network,
    model.variables,
    {'image': image},
    train=['group1.block1.noise'],
    rngs={'dropout': jax.random.key(0)},
  )
  noise = features['group1.block1.noise'] - features['group1.block1']
  assert abs(float(noise.std()) - 0.5) < 0.1


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'sigma': -1.0}, 'sigma: expected a number of at least 0, got -1.0'),
    ({'blocks': ('group9',)}, "unknown stage 'group9'"),
  ],
)
def test_invalid_noise_is_refused(arguments, message):
  with pytest.raises(UsageError, match=message):
    noisy.noisy(networks.NETWORKS['resnet8'](), **arguments)
