"""Networks that are narrower inside, where the rest does not see it."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage
from jaxdistill.methods.neighbourhood import layouts
from jaxdistill.networks import graph, layers, registry
from jaxdistill.networks.layers import inverted_residual
from jaxdistill.networks.models import (
  densenet,
  imagenet_resnet,
  preactivation,
  pyramidnet,
  resnet,
  shufflenet,
)
from jaxdistill.networks.surgery import narrowing

IMAGE = {'image': jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}


class OwnBlock(nn.Module):
  """A block of a user: it says which of its fields holds inner channels."""

  width: int
  inner: int = 8

  def inner_widths(self):
    return {'inner': self.inner}

  @nn.compact
  def __call__(self, x, train):
    x = nn.relu(nn.Conv(self.inner, (3, 3))(x))
    return nn.BatchNorm(use_running_average=not train)(
      nn.Conv(self.width, (1, 1))(x)
    )


# One block of each kind that can be narrower inside; all read 8 channels.
BLOCKS = (
  resnet.BasicBlock(8),
  resnet.PreactivationBlock(8, 5, 2),
  imagenet_resnet.Bottleneck(16),
  preactivation.PreactivationBottleneck(16),
  pyramidnet.PyramidBlock(8),
  pyramidnet.PyramidBlock(8, False),
  densenet.DenseLayer(4, 8),
  shufflenet.SplitUnit(8),
  layers.ResidualUnit(8, depth=3),
  inverted_residual.InvertedResidual(8, 16),
  inverted_residual.InvertedResidual(8, 16, squeeze=4),
  OwnBlock(8),
)


@pytest.mark.parametrize('name', ['cifar_mobilenet_v2', 'mobilenet_v3_small'])
def test_inverted_residuals_are_narrow_inside_and_nowhere_else(name):
  network = registry.create(name, num_classes=10)
  narrow = narrowing.narrowed(network, multiplier=0.5)
  for stage, changed in zip(network.stages, narrow.stages):
    if getattr(stage.module, 'expand', False):
      assert changed.module.inner == stage.module.inner // 2
      assert changed.module == stage.module.clone(inner=changed.module.inner)
    else:
      assert changed == stage


def test_all_convolutions_of_a_vgg_but_the_last_of_each_group_are_narrowed():
  network = registry.create('cifar_vgg', num_classes=10, depth=13)
  narrow = narrowing.narrowed(network, multiplier=0.5)
  widths = [s.module.width for s in narrow.stages if s.name[:5] == 'group']
  expected = (32, 64, 64, 128, 128, 256, 256, 512, 256, 512)
  assert tuple(widths) == expected
  layout = layouts.layout(narrow, network, IMAGE)
  # The first group reads the image: it has no stem.
  assert layout.inputs == ('image', 'image')
  names = [piece.name for piece in layout.neighbourhoods]
  assert names == [f'group{g}.conv2' for g in range(1, 6)]


def test_a_module_of_a_user_says_what_is_inside_of_it():
  network = Network(
    (
      Stage('stem', layers.ConvUnit(4)),
      Stage('group1.mine', OwnBlock(4)),
      Stage('group2.mine', OwnBlock(4, 5)),
    )
  )
  narrow = narrowing.narrowed(network, multiplier=0.6)
  assert [s.module.inner for s in narrow.stages[1:]] == [4, 3]
  layout = layouts.layout(narrow, network, IMAGE)
  assert layout.stages == ('group1.mine', 'group2.mine')


@pytest.mark.parametrize('block', BLOCKS, ids=lambda b: type(b).__name__)
def test_a_narrow_block_gives_the_same_shape_with_fewer_parameters(block):
  """Half of each width inside; a factor of 1 leaves the block as it is."""
  network = Network((Stage('block', block),))
  assert narrowing.narrowed(network, multiplier=1.0) == network
  narrow = narrowing.narrowed(network, multiplier=0.5)
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 8), jnp.float32)}
  shapes, sizes = [], []
  for each in (narrow, network):
    variables = graph.variable_shapes(each, image)
    shapes.append(graph.shapes(each, image)['block'].shape)
    sizes.append(graph.count_parameters(variables))
  assert shapes[0] == shapes[1]
  assert sizes[0] < sizes[1]
  module = network.stages[0].module
  for field, width in narrowing.inner_widths(module).items():
    assert getattr(narrow.stages[0].module, field) == width // 2


def test_the_second_width_of_a_bottleneck_can_stay():
  network = registry.create('cifar_resnet50', num_classes=10)
  narrow = narrowing.narrowed(network, multiplier=0.5, inner_after=False)
  block = narrow.stages[1].module
  assert (block.inner, block.inner_after) == (32, 64)


@pytest.mark.parametrize(
  ('name', 'arguments', 'kind'),
  [
    ('vit', {}, r'head \(Classifier\)'),
    ('cifar_vgg', {'depth': 8}, r'group1.conv1 \(VGGUnit\)'),
    ('mobilenet_v1', {}, r'stem \(ConvUnit\)'),
  ],
)
def test_a_network_that_has_nothing_inside_is_refused(name, arguments, kind):
  network = registry.create(name, num_classes=10, **arguments)
  with pytest.raises(UsageError, match=f'the method inner_widths.*{kind}'):
    narrowing.narrowed(network, multiplier=0.5)
