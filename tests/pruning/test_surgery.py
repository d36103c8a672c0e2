"""Taking channels out of networks, by the norm of filters or by batch norms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import networks, optimizers, pruning
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import adapters, description, graph, layers, summary
from jaxdistill.networks.layers import inverted_residual
from jaxdistill.networks.models import (
  densenet,
  preactivation,
  pyramidnet,
  resnet,
  shufflenet,
  vgg,
)
from jaxdistill.phases import joint
from jaxdistill.pruning import filter_pruning, surgery
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
HEAD = (Stage('pool', layers.Pool()), Stage('head', layers.Classifier(3)))


def chain(*modules):
  """A network of stages 'group1.block1', ..., a pool and a head."""
  stages = [Stage(f'group1.block{i + 1}', m) for i, m in enumerate(modules)]
  return Network((*stages, *HEAD))


def normed(*modules):
  """Like `chain`, with a norm before the pool."""
  pool = Stage('pool', layers.NormPool('group1.pre'))
  return Network((*chain(*modules).stages[:-2], pool, HEAD[1]))


UNIT = vgg.VGGUnit
NETWORKS = {
  'basic': chain(resnet.BasicBlock(4), resnet.BasicBlock(6, 5, 2, 'pool')),
  'preactivation': normed(
    resnet.PreactivationBlock(4),
    resnet.PreactivationBlock(6, stride=2, pre='group0.pre'),
    resnet.PreactivationBlock(6, 5),
  ),
  'bottleneck': normed(
    preactivation.PreactivationBottleneck(8, 5),
    preactivation.PreactivationBottleneck(8, 4, 6, stride=2),
  ),
  'dense': normed(
    densenet.DenseLayer(4),
    densenet.Transition(7, 2, 'group0.pre'),
    densenet.DenseLayer(3, 5),
  ),
  'pyramid': normed(
    pyramidnet.PyramidBlock(4, bottleneck=False),
    pyramidnet.PyramidBlock(2, stride=2, inner=5, pre='group0.pre'),
  ),
  'mobile': chain(
    inverted_residual.InvertedResidual(4, 6, squeeze=2),
    shufflenet.SplitUnit(8, 5, stride=2, down=True),
  ),
  'vgg': chain(UNIT(4, use_bias=False), UNIT(6, pool=True), UNIT(5)),
  'flattened': Network(
    (
      Stage('group1.conv1', UNIT(4)),
      Stage('pool', vgg.PoolFlatten()),
      Stage('hidden', layers.Hidden(7)),
      Stage('head', layers.Classifier(3)),
    )
  ),
}
IMAGE = jax.random.normal(jax.random.key(5), (4, 6, 6, 3))


def randomized(network, seed=0):
  """A model whose variables all have different random values."""
  shapes = graph.variable_shapes(network, {'image': IMAGE})
  rng = np.random.default_rng(seed)

  def value(path, x):
    positive = path[-1].key == 'var'
    drawn = rng.normal(size=x.shape).astype(np.float32)
    return jnp.asarray(np.abs(drawn) + 0.1 if positive else drawn)

  return Model(network, jax.tree_util.tree_map_with_path(value, shapes))


@pytest.fixture(scope='module')
def models():
  return {name: randomized(network) for name, network in NETWORKS.items()}


def random_channels(model, seed=1):
  """A random choice of slightly more than half of the channels of each set."""
  rng = np.random.default_rng(seed)
  return {
    (s.stage, s.field): np.sort(rng.permutation(s.size)[: s.size // 2 + 1])
    for s in surgery.channel_sets(model)
  }


@pytest.mark.parametrize('name', NETWORKS)
def test_the_pruned_network_computes_the_same_as_the_masked_one(name, models):
  kept = random_channels(models[name])
  small = surgery.keep_channels(models[name], kept)
  masked = surgery.mask_channels(models[name], kept)
  small_logits, masked_logits = (
    graph.apply(*m, IMAGE) for m in (small, masked)
  )
  np.testing.assert_allclose(small_logits, masked_logits, rtol=1e-4, atol=1e-5)
  whole_logits = graph.apply(*models[name], IMAGE)
  assert np.abs(whole_logits - masked_logits).max() > 0.1
  assert graph.count_parameters(small.variables) < graph.count_parameters(
    masked.variables
  )


@pytest.mark.parametrize('name', NETWORKS)
def test_a_pruned_network_can_be_rebuilt_from_its_description(name, models):
  """The rebuilt network has variables of the same shapes."""
  small = surgery.keep_channels(models[name], random_channels(models[name]))
  content = description.to_description(small.network)
  again = description.from_description(content)
  assert again == small.network
  shapes = graph.variable_shapes(again, {'image': IMAGE})
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a.shape, b.shape),
    shapes,
    dict(small.variables),
  )


@pytest.mark.parametrize('name', ['preactivation', 'dense'])
def test_a_pruned_network_can_be_pruned_again(name, models):
  once = surgery.keep_channels(models[name], random_channels(models[name]))
  kept = random_channels(once, 2)
  twice = surgery.keep_channels(once, kept)
  np.testing.assert_allclose(
    graph.apply(*twice, IMAGE),
    graph.apply(*surgery.mask_channels(once, kept), IMAGE),
    rtol=1e-4,
    atol=1e-5,
  )


def test_the_channels_of_every_kind_of_block_are_listed(models):
  sets = {
    name: [
      (s.stage.partition('.')[2] or s.stage, s.field, s.size)
      for s in sets_of_model
    ]
    for name, sets_of_model in (
      (name, surgery.channel_sets(model)) for name, model in models.items()
    )
  }
  assert sets['basic'] == [('block1', 'inner', 4), ('block2', 'inner', 5)]
  assert sets['dense'] == [
    ('block1', 'selected', 3),
    ('block2', 'selected', 7),
    ('block3', 'selected', 7),
    ('block3', 'inner', 5),
    ('pool', 'selected', 10),
  ]
  assert [f for _, f, _ in sets['bottleneck']] == [
    *('selected', 'inner', 'inner_after') * 2,
    'selected',
  ]
  assert sets['pyramid'] == [
    ('block1', 'selected', 3),
    ('block1', 'inner', 4),
    ('block2', 'selected', 4),
    ('block2', 'inner', 5),
    ('block2', 'inner_after', 5),
    ('pool', 'selected', 8),
  ]
  assert sets['mobile'] == [('block1', 'inner', 6), ('block2', 'inner', 5)]
  assert sets['vgg'] == [
    ('block1', 'width', 4),
    ('block2', 'width', 6),
    ('block3', 'width', 5),
  ]


def test_keeping_all_channels_changes_nothing(models):
  same = surgery.keep_channels(models['dense'], {})
  jax.tree.map(
    np.testing.assert_array_equal, same.variables, models['dense'].variables
  )


def test_the_filters_of_the_largest_norms_stay(models):
  """0.6 of 4 and 5 filters are 2 and 3."""
  model = models['basic']
  small = pruning.filters(keep=0.6).prune(model)
  for stage, count in (('group1.block1', 2), ('group1.block2', 3)):
    before, after = (
      np.asarray(m.variables['params'][stage]['conv1']['kernel'])
      for m in (model, small)
    )
    norms = np.abs(before).sum((0, 1, 2))
    stay = sorted(np.argsort(norms)[-count:])
    np.testing.assert_array_equal(after, before[..., stay])


def test_a_fraction_that_gives_a_whole_number_is_not_rounded_down():
  """In floating point, 0.29 * 100 is 28.999999999999996."""
  network = chain(resnet.BasicBlock(4, 100), resnet.BasicBlock(4, 16))
  shapes = graph.variable_shapes(network, {'image': IMAGE})
  counts = pruning.filters(keep=0.29).check(Model(network, shapes))
  assert list(counts.values()) == [29, 4]


def test_skipped_blocks_are_not_pruned(models):
  small = pruning.filters(keep=0.5, skip=('group1.block2',)).prune(
    models['basic']
  )
  assert [s.module.inner for s in small.network.stages[:2]] == [2, 5]
  same = pruning.filters(keep=0.5, skip=('group1',)).prune(models['basic'])
  jax.tree.map(
    np.testing.assert_array_equal, same.variables, models['basic'].variables
  )


def shaped(name, **arguments):
  """A model for 100 classes, all of whose variables are 1."""
  network = networks.NETWORKS[name](num_classes=100, **arguments)
  image = {'image': jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)}
  shapes = graph.variable_shapes(network, image)
  return Model(network, jax.tree.map(lambda x: np.ones(x.shape, 'f4'), shapes))


# Depth -> {keep: (number of parameters if the sensitive blocks are not pruned,
# number of parameters if all blocks are pruned)}.
PUBLISHED = {
  56: {
    (0.4, 0.7, 0.9): (741_562, 711_502),
    (0.5, 0.6, 0.7): (628_470, 570_274),
  },
  110: {
    (0.8, 0.8, 0.8): (1_390_276, 1_374_820),
    (0.5, 0.6, 0.7): (1_174_274, 1_148_992),
  },
}


@pytest.mark.parametrize('depth', PUBLISHED)
def test_pruned_resnets_have_the_published_sizes(depth):
  model = shaped(f'resnet{depth}', shortcut='A')
  for keep, counts in PUBLISHED[depth].items():
    for skip, count in zip((filter_pruning.SENSITIVE[depth], ()), counts):
      small = pruning.filters(keep=keep, skip=skip).prune(model)
      assert graph.count_parameters(small.variables) == count


def test_pruning_filters_reduces_multiply_adds(models):
  small = pruning.filters(keep=0.5).prune(models['vgg'])
  before, after = (
    summary(m.network, (6, 6, 3)) for m in (models['vgg'], small)
  )
  # 4, 6, 5 channels become 2, 3, 2: 36 * 27 * 2 + 9 * 9 * (2 * 3 + 3 * 2) + 6.
  assert (before.macs, after.macs) == (36 * 108 + 81 * 54 + 15, 2922)


def test_slimming_uses_one_threshold_but_keeps_one_channel_per_norm():
  """Six of nine scales are to go; the second norm keeps its largest scale."""
  model = randomized(NETWORKS['basic'])
  scales = {'group1.block1': [1.0, -0.5, 0.9, 0.8], 'group1.block2': [0.1] * 5}
  scales['group1.block2'][3] = -0.2
  params = dict(model.variables['params'])
  for stage, scale in scales.items():
    norm = {**params[stage]['norm1'], 'scale': jnp.array(scale)}
    params[stage] = {**params[stage], 'norm1': norm}
  model = model._replace(variables={**model.variables, 'params': params})
  small = pruning.slimming(keep=3 / 9).prune(model)
  kept = {
    name: small.variables['params'][name]['norm1']['scale'] for name in scales
  }
  np.testing.assert_allclose(kept['group1.block1'], [1, 0.9, 0.8])
  np.testing.assert_allclose(kept['group1.block2'], [-0.2])
  assert pruning.slimming(keep=1.0).prune(model).network.stages == tuple(
    s._replace(module=s.module.clone(inner=len(scales[s.name])))
    if s.name in scales
    else s
    for s in model.network.stages
  )


def test_slimming_halves_the_channels_of_every_kind_of_block(models):
  for name in ('preactivation', 'bottleneck', 'dense', 'vgg'):
    small = pruning.slimming(keep=0.5).prune(models[name])
    before, after = (
      sum(s.size for s in surgery.channel_sets(m))
      for m in (models[name], small)
    )
    assert abs(after - before / 2) <= 2
    assert np.isfinite(graph.apply(*small, IMAGE)).all()


def test_scales_receive_the_subgradient_of_their_l1_norm():
  params = {'norm': {'scale': jnp.array([2.0, -3.0, 0.0]), 'bias': jnp.ones(3)}}
  optimizer = pruning.sparse_scales(optax.sgd(1.0), 0.1)
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  np.testing.assert_allclose(updates['norm']['scale'], [-0.1, 0.1, 0])
  np.testing.assert_array_equal(updates['norm']['bias'], np.zeros(3))


def test_a_pruned_network_trains_under_distillation(
  student, teacher, recipe, dataset
):
  small = pruning.filters(keep=0.5).prune(student)
  optimizer = pruning.slim(
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05))
  )
  method = joint.kd(recipe._replace(optimizer=optimizer))
  carry = {'student': small, 'teacher': teacher}
  end = loop.fit(method, carry, dataset, options=SILENT).carry['student']
  assert end.network == small.network
  for a, b in zip(*(jax.tree.leaves(m.variables) for m in (small, end))):
    assert a.shape == b.shape
    assert math.isfinite(float(jnp.sum(b)))


@pytest.mark.parametrize(
  ('function', 'words'),
  [
    (lambda: pruning.filters(keep=0.0), r'in \(0, 1\], got 0\.0'),
    (lambda: pruning.filters(keep=(0.5, 1.2)), r'got 1\.2'),
    (lambda: pruning.filters(keep=float('nan')), 'keep: .* got nan'),
    (lambda: pruning.filters(keep=True), 'keep: .* got True'),
    (lambda: pruning.slimming(keep=-0.5), r'got -0\.5'),
    (
      lambda: pruning.slim(optimizer=None, strength=-1.0),
      r'strength: .* got -1\.0',
    ),
    (
      lambda: pruning.slim(optimizer=None, strength=float('nan')),
      'strength: .* got nan',
    ),
  ],
)
def test_a_fraction_out_of_its_range_is_refused(function, words):
  with pytest.raises(UsageError, match=words):
    function()


@pytest.mark.parametrize(
  ('make', 'options', 'words'),
  [
    (
      pruning.filters,
      {'keep': 0.5, 'skip': ('group1.block3',)},
      r"skip 'group1\.block3'; did you mean 'group1\.block[12]'\?",
    ),
    (pruning.slimming, {'keep': 0.5, 'skip': ('gruop1',)}, "skip 'gruop1'"),
    (pruning.slimming, {'keep': 0.5, 'skip': ('group1',)}, 'names every'),
    (
      pruning.filters,
      {'keep': 0.2},
      r"at least 0\.25, .* the 4 filters of 'group1\.block1', got 0\.2",
    ),
    (pruning.filters, {'keep': (0.5, 0.5)}, r'expected 1 entries, .* got 2'),
  ],
)
def test_a_network_that_cannot_be_pruned_is_refused(make, options, words):
  shapes = graph.variable_shapes(NETWORKS['basic'], {'image': IMAGE})
  with pytest.raises(UsageError, match=words):
    make(**options).check(Model(NETWORKS['basic'], shapes))


def test_the_fraction_that_a_message_suggests_keeps_a_filter():
  """A third rounded to four digits would be slightly below a third."""
  network = chain(resnet.BasicBlock(4, 3))
  model = Model(network, graph.variable_shapes(network, {'image': IMAGE}))
  with pytest.raises(UsageError, match=r'at least 0\.3334, which keeps'):
    pruning.filters(keep=0.3).check(model)
  assert [*pruning.filters(keep=0.3334).check(model).values()] == [1]


def test_a_network_whose_filters_must_all_stay_is_refused():
  """In a DenseNet without bottlenecks, all later layers read every output."""
  network = normed(densenet.DenseLayer(4))
  model = Model(network, graph.variable_shapes(network, {'image': IMAGE}))
  with pytest.raises(UsageError, match="'filters' finds no layer"):
    pruning.filters(keep=0.5).check(model)
  assert pruning.slimming(keep=0.5).check(model)


@pytest.mark.parametrize(
  ('kept', 'words'),
  [
    (
      {('group1.block1', 'inner'): []},
      "at least one channel of 'group1.block1'",
    ),
    (
      {('group1.block1', 'width'): [0]},
      "unknown set of channels 'group1.block1 width'.*'group1.block1 inner'",
    ),
  ],
)
def test_channels_that_cannot_be_kept_are_refused(kept, words, models):
  with pytest.raises(UsageError, match=words):
    surgery.keep_channels(models['basic'], kept)


def test_a_network_of_a_single_stage_is_refused():
  network = adapters.from_functions(lambda *a: {}, lambda *a: (0, {}))
  with pytest.raises(UsageError, match='none of its stages has any'):
    pruning.filters(keep=0.5).check(Model(network, {'params': {}}))
