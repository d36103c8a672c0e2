"""Detectors: their stages, outputs and anchors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import description, graph
from jaxdistill.networks.surgery import detectors


def resnet(**arguments):
  return jd.networks.create(
    'imagenet_resnet',
    num_classes=10,
    stem_width=2,
    widths=(2, 2, 4, 4),
    **arguments,
  )


def shapes(network, size=(64, 96)):
  image = {'image': jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)}
  return graph.shapes(network, image)


@pytest.fixture(scope='module')
def network():
  return detectors.retinanet(resnet(), num_classes=5, width=6, depth=1)


def test_each_level_of_the_pyramid_is_a_stage(network):
  found = shapes(network, (72, 100))  # no multiple of the strides
  sizes = {3: (9, 13), 4: (5, 7), 5: (3, 4), 6: (2, 2), 7: (1, 1)}
  for k, size in sizes.items():
    assert found[f'p{k}'].shape == (2, *size, 6)
  count = 9 * sum(h * w for h, w in sizes.values())
  output = graph.output(network, found)
  assert output['head'].shape == (2, count, 5)
  assert output['head.boxes'].shape == (2, count, 4)
  levels = [output[f'head.anchors{k}'].shape[1] for k in sizes]
  assert levels == [9 * h * w for h, w in sizes.values()]
  assert graph.main_output(network) == 'head'


def test_the_pyramid_adds_the_enlarged_map_above(network):
  lateral = detectors.Lateral(3)
  rng = np.random.default_rng(0)
  x, above = (
    rng.normal(size=shape).astype(np.float32)
    for shape in ((1, 5, 6, 2), (1, 3, 3, 3))
  )
  variables = lateral.init(jax.random.key(0), x, above, train=False)
  found = lateral.apply(variables, x, above, train=False)
  kernel = variables['params']['conv']['kernel'][0, 0]
  enlarged = np.kron(above[0].transpose(2, 0, 1), np.ones((2, 2)))
  expected = x @ kernel + enlarged.transpose(1, 2, 0)[None, :5]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_new_head_gives_each_class_its_prior_and_shares_its_weights():
  head = detectors.AnchorHead(3, width=2, depth=1, stride=4, prior=0.1)
  maps = [jnp.zeros((1, n, n, 2)) for n in (2, 1)]
  variables = head.init(jax.random.key(0), *maps, train=False)
  found = head.apply(variables, *maps, train=False)
  np.testing.assert_allclose(jax.nn.sigmoid(found['']), 0.1, rtol=1e-5)
  one_level = head.init(jax.random.key(0), maps[0], train=False)
  assert jax.tree.structure(one_level) == jax.tree.structure(variables)
  sides = found['.anchors4'][0, 1, 2:] - found['.anchors4'][0, 1, :2]
  np.testing.assert_allclose(sides, (32, 32), rtol=1e-5)  # four of 8 pixels


def test_strides_are_measured():
  ordinary, unpooled = (
    detectors.retinanet(x, num_classes=2, width=2)
    for x in (resnet(), resnet(stem_pool=False))
  )
  strides = [n.stages[-1].module.stride for n in (ordinary, unpooled)]
  assert strides == [8, 4]


def test_a_detector_is_rebuilt_from_its_description(network):
  text = json.dumps(description.to_description(network))
  assert description.from_description(json.loads(text)) == network


@pytest.mark.parametrize(
  'made, words',
  [
    (lambda: resnet(strides=(1, 2, 1, 1)), 'halve the resolution, got .*32'),
    (lambda: jd.networks.create('vit_b16', num_classes=3), 'pools the last'),
    (lambda: jd.Network(resnet().stages[:-1]), None),
  ],
)
def test_only_pyramids_of_maps_become_detectors(made, words):
  if words is None:
    assert detectors.retinanet(made(), num_classes=2, width=2)
    return
  with pytest.raises(UsageError, match=words):
    detectors.retinanet(made(), num_classes=2)


@pytest.mark.parametrize(
  'keys',
  [
    *({'width': 0}, {'prior': 1.0}, {'size': 0}),
    *({'scales': (0.0,)}, {'scales': ()}),
  ],
)
def test_numbers_out_of_range_are_refused(keys):
  with pytest.raises(UsageError, match=next(iter(keys))):
    detectors.retinanet(resnet(), num_classes=2, **keys)


def test_frozen_norms_keep_their_statistics_in_training():
  for name in ('cifar_resnet18', 'cifar_resnet50'):
    for stem in ('cifar', 'deep'):
      frozen = jd.networks.create(
        name,
        num_classes=2,
        stem=stem,
        stem_width=2,
        widths=(2, 2, 2, 2),
        frozen_norms=True,
      )
      kinds = {
        stage.module for stage in frozen.stages if 'pool' not in stage.name
      }
      assert all(module.frozen for module in kinds if hasattr(module, 'frozen'))
      assert sum(hasattr(module, 'frozen') for module in kinds) >= 3


@pytest.mark.parametrize('depth', [18, 50])
def test_a_frozen_block_computes_the_same_in_training(depth):
  frozen = jd.networks.create(
    f'cifar_resnet{depth}',
    num_classes=2,
    stem='deep',
    stem_width=2,
    widths=(2, 2, 2, 2),
    frozen_norms=True,
  )
  part = jd.Network(frozen.stages[:2])
  image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)

  @jax.jit
  def both(rng):
    variables = graph.init(part, rng, {'image': image})
    quiet, _ = graph.run(part, variables, {'image': image})
    loud, updates = graph.run(part, variables, {'image': image}, train=True)
    return quiet['group1'], loud['group1'], updates, variables

  quiet, loud, updates, variables = both(jax.random.key(0))
  np.testing.assert_array_equal(quiet, loud)
  for stage, tree in updates['batch_stats'].items():
    jax.tree.map(
      np.testing.assert_array_equal, tree, variables['batch_stats'][stage]
    )
