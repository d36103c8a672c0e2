"""The table of a network counts what one counts by hand."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from jaxdistill import networks
from jaxdistill.networks import layers, summary


@pytest.fixture(autouse=True)
def zero_kernels(monkeypatch):
  """Makes kernels zero: random numbers take long to trace, and are not read."""
  zeros = dict.fromkeys(layers.KERNELS, jax.nn.initializers.zeros)
  monkeypatch.setattr(layers, 'KERNELS', zeros)


def test_resnet20_has_the_multiply_adds_counted_by_hand():
  table = summary(networks.NETWORKS['resnet20'](), (32, 32, 3))
  macs = {row.stage: row.macs for row in table.rows}
  # 32 * 32 places, 3x3 kernels from 3 to 16 channels.
  assert macs['stem'] == 32 * 32 * 9 * 3 * 16
  assert macs['group1.block1'] == 2 * 32 * 32 * 9 * 16 * 16
  # Two 3x3 convolutions and the 1x1 one of the shortcut.
  assert macs['group2.block1'] == 16 * 16 * (9 * (16 + 32) * 32 + 16 * 32)
  assert macs['head'] == 64 * 10
  # 442,368 + 6 * 4,718,592 + 2 * (3,670,016 + 2 * 4,718,592 - 4,718,592)
  # + 640: all blocks but those that halve the map have equally many.
  blocks = 7 * 4_718_592 + 2 * 3_670_016
  assert table.macs == 442_368 + blocks + 640 == 40_813_184
  assert table.parameters == 272_474


@pytest.mark.parametrize(
  ('name', 'millions'),
  [
    # From torchvision's table of models, in millions of multiply-adds.
    ('resnet18', 1814),
    ('resnet50', 4089),
    ('mobilenet_v2', 301),
    # Published as 1.3 GFLOPs; attention is included.
    ('deit_tiny', 1254),
  ],
)
def test_imagenet_networks_have_the_published_multiply_adds(name, millions):
  table = summary(networks.NETWORKS[name](), (224, 224, 3))
  assert round(table.macs / 1e6) == millions


@pytest.mark.parametrize(
  ('name', 'arguments'),
  [
    ('cifar_mobilenet_v2', {'width': 0.2, 'last_width': 8}),
    ('cifar_shufflenet_v1', {'stem_width': 12, 'widths': (24, 48, 96)}),
  ],
)
def test_the_count_is_the_same_on_every_backend(monkeypatch, name, arguments):
  network = networks.NETWORKS[name](**arguments)
  on_cpu = summary(network, (16, 16, 3))
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert summary(network, (16, 16, 3)) == on_cpu


def test_multiply_adds_inside_a_loop_count_once_per_iteration():
  def init(rng, image):
    del rng, image
    return {'params': {'matrix': jnp.eye(3)}}

  def apply(variables, image, train, rngs):
    del train, rngs

    def step(x, _):
      return x @ variables['params']['matrix'], None

    return jax.lax.scan(step, image.mean((1, 2)), None, length=5)[0], {}

  table = summary(networks.from_functions(init, apply), (4, 4, 3))
  assert table.macs == 5 * 3 * 3
  assert table.parameters == 9


def test_the_text_is_a_table_with_totals():
  network = networks.NETWORKS['resnet8'](stem_width=4, widths=(4, 4, 4))
  table = summary(network, (8, 8, 3))
  lines = str(table).splitlines()
  assert len(lines) == 2 + len(network.stages)
  assert lines[0].split() == ['stage', 'output', 'parameters', 'multiply-adds']
  assert lines[1].startswith('stem')
  assert lines[-1].split()[-2:] == [f'{table.parameters:,}', f'{table.macs:,}']
  assert len({len(line) for line in lines}) == 1


TABLE = {
  name: (int(stages), parameters, macs)
  for name, stages, parameters, macs in re.findall(
    r'^\| `(\w+)` \| (\d+) \| ([\d,]+) \| ([\d,.]+) \|$',
    (pathlib.Path(__file__).parents[2] / 'NETWORKS.md').read_text(),
    re.MULTILINE,
  )
}
FAMILIES = {'cifar_resnet', 'wide_resnet', 'cifar_vgg', 'imagenet_resnet'} | {
  *('preactivation_resnet', 'cifar_densenet', 'pyramidnet', 'vit'),
  *('efficientnet_lite', 'convnext'),
}


def test_every_network_is_in_the_table():
  assert set(TABLE) | FAMILIES == set(networks.names())


@pytest.mark.parametrize(
  ('name', 'size', 'num_classes'),
  [
    ('wrn_16_2', 32, 10),
    ('cifar_mobilenet_v2', 32, 10),
    ('vgg8', 32, 10),
    ('resnet18', 224, 1000),
    ('deit_tiny', 224, 1000),
  ],
)
def test_a_row_of_the_table_agrees_with_the_network(name, size, num_classes):
  network = networks.create(name, num_classes=num_classes)
  table = summary(network, (size, size, 3))
  row = (f'{table.parameters:,}', f'{table.macs / 1e6:,.1f}')
  assert TABLE[name] == (len(network.stages), *row)
