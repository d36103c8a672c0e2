"""Channels taken out of networks, by the norm of filters or batch norms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import networks, optimizers
from jaxdistill.methods import joint
from jaxdistill.networks import (
  densenet,
  files,
  inverted_residual,
  layers,
  preactivation,
  pyramidnet,
  resnet,
  shufflenet,
  staged,
  vgg,
)
from jaxdistill.pruning import channels, filters, slimming
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

SILENT = loop.Options(log=log.Log(show=False))
HEAD = (Stage('pool', layers.Pool()), Stage('head', layers.Classifier(3)))


def chain(*modules):
  """Stages 'group1.block1', ... of the modules, a pool and a head."""
  stages = [Stage(f'group1.block{i + 1}', m) for i, m in enumerate(modules)]
  return Network((*stages, *HEAD))


def normed(*modules):
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
  """A model whose norms differ from each other in all their values."""
  shapes = staged.variable_shapes(network, {'image': IMAGE})
  rng = np.random.default_rng(seed)

  def value(path, x):
    positive = path[-1].key == 'var'
    drawn = rng.normal(size=x.shape).astype(np.float32)
    return jnp.asarray(np.abs(drawn) + 0.1 if positive else drawn)

  return Model(network, jax.tree_util.tree_map_with_path(value, shapes))


@pytest.fixture(scope='module')
def models():
  return {name: randomized(network) for name, network in NETWORKS.items()}


def some_kept(model, seed=1):
  rng = np.random.default_rng(seed)
  return {
    (s.stage, s.field): np.sort(rng.permutation(s.size)[: s.size // 2 + 1])
    for s in channels.channel_sets(model)
  }


@pytest.mark.parametrize('name', NETWORKS)
def test_the_pruned_network_answers_as_the_masked_one(name, models):
  kept = some_kept(models[name])
  small = channels.keep_channels(models[name], kept)
  masked = channels.mask_channels(models[name], kept)
  ours, theirs = (staged.apply(*m, IMAGE) for m in (small, masked))
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
  whole = staged.apply(*models[name], IMAGE)
  assert np.abs(whole - theirs).max() > 0.1
  assert files.count_parameters(small.variables) < files.count_parameters(
    masked.variables
  )


@pytest.mark.parametrize('name', NETWORKS)
def test_a_pruned_network_is_what_its_spec_says(name, models):
  """All its variables have the shapes that a new one of its kind has."""
  small = channels.keep_channels(models[name], some_kept(models[name]))
  again = files.from_spec(files.to_spec(small.network))
  assert again == small.network
  shapes = staged.variable_shapes(again, {'image': IMAGE})
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a.shape, b.shape),
    shapes,
    dict(small.variables),
  )


@pytest.mark.parametrize('name', ['preactivation', 'dense'])
def test_a_pruned_network_can_be_pruned_again(name, models):
  once = channels.keep_channels(models[name], some_kept(models[name]))
  kept = some_kept(once, 2)
  twice = channels.keep_channels(once, kept)
  np.testing.assert_allclose(
    staged.apply(*twice, IMAGE),
    staged.apply(*channels.mask_channels(once, kept), IMAGE),
    rtol=1e-4,
    atol=1e-5,
  )


def test_every_kind_of_channels_is_found(models):
  found = {
    name: [(s.stage.partition('.')[2] or s.stage, s.field, s.size) for s in own]
    for name, own in (
      (name, channels.channel_sets(model)) for name, model in models.items()
    )
  }
  assert found['basic'] == [('block1', 'inner', 4), ('block2', 'inner', 5)]
  assert found['dense'] == [
    ('block1', 'selected', 3),
    ('block2', 'selected', 7),
    ('block3', 'selected', 7),
    ('block3', 'inner', 5),
    ('pool', 'selected', 10),
  ]
  assert [f for _, f, _ in found['bottleneck']] == [
    *('selected', 'inner', 'inner_after') * 2,
    'selected',
  ]
  assert found['pyramid'] == [
    ('block1', 'selected', 3),
    ('block1', 'inner', 4),
    ('block2', 'selected', 4),
    ('block2', 'inner', 5),
    ('block2', 'inner_after', 5),
    ('pool', 'selected', 8),
  ]
  assert found['mobile'] == [('block1', 'inner', 6), ('block2', 'inner', 5)]
  assert found['vgg'] == [
    ('block1', 'width', 4),
    ('block2', 'width', 6),
    ('block3', 'width', 5),
  ]


def test_without_pruning_nothing_changes(models):
  same = channels.keep_channels(models['dense'], {})
  jax.tree.map(
    np.testing.assert_array_equal, same.variables, models['dense'].variables
  )


def test_the_filters_of_the_largest_norms_stay(models):
  """0.6 of 4 and 5 filters are 2 and 3."""
  model = models['basic']
  small = filters.filters(keep=0.6).prune(model)
  for stage, count in (('group1.block1', 2), ('group1.block2', 3)):
    whole, own = (
      np.asarray(m.variables['params'][stage]['conv1']['kernel'])
      for m in (model, small)
    )
    norms = np.abs(whole).sum((0, 1, 2))
    stay = sorted(np.argsort(norms)[-count:])
    np.testing.assert_array_equal(own, whole[..., stay])


def test_shares_are_rounded_down_but_not_below_themselves():
  """0.29 * 100 is 28.999999999999996."""
  network = chain(resnet.BasicBlock(4, 100), resnet.BasicBlock(4, 16))
  shapes = staged.variable_shapes(network, {'image': IMAGE})
  counts = filters.filters(keep=0.29).check(Model(network, shapes))
  assert list(counts.values()) == [29, 4]


def test_skipped_blocks_stay(models):
  small = filters.filters(keep=0.5, skip=('group1.block2',)).prune(
    models['basic']
  )
  assert [s.module.inner for s in small.network.stages[:2]] == [2, 5]
  same = filters.filters(keep=0.5, skip=('group1',)).prune(models['basic'])
  jax.tree.map(
    np.testing.assert_array_equal, same.variables, models['basic'].variables
  )


def shaped(name, **arguments):
  """A network for 100 classes with numbers from nowhere."""
  network = networks.NETWORKS[name](num_classes=100, **arguments)
  image = {'image': jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)}
  shapes = staged.variable_shapes(network, image)
  return Model(network, jax.tree.map(lambda x: np.ones(x.shape, 'f4'), shapes))


# Depth -> keep, parameters with the sensitive blocks left alone and without.
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
    for skip, count in zip((filters.SENSITIVE[depth], ()), counts):
      small = filters.filters(keep=keep, skip=skip).prune(model)
      assert files.count_parameters(small.variables) == count


def test_work_drops_with_the_channels(models):
  small = filters.filters(keep=0.5).prune(models['vgg'])
  before, after = (
    networks.summary(m.network, (6, 6, 3)) for m in (models['vgg'], small)
  )
  # 4, 6, 5 channels become 2, 3, 2: 36 * 27 * 2 + 9 * 9 * (2 * 3 + 3 * 2) + 6.
  assert (before.macs, after.macs) == (36 * 108 + 81 * 54 + 15, 2922)


def test_one_threshold_decides_over_all_norms():
  """10 scales of which 0.1 to 0.4 go; the second norm keeps its largest."""
  model = randomized(NETWORKS['basic'])
  scales = {'group1.block1': [1.0, -0.5, 0.9, 0.8], 'group1.block2': [0.1] * 5}
  scales['group1.block2'][3] = -0.2
  params = dict(model.variables['params'])
  for stage, scale in scales.items():
    norm = {**params[stage]['norm1'], 'scale': jnp.array(scale)}
    params[stage] = {**params[stage], 'norm1': norm}
  model = model._replace(variables={**model.variables, 'params': params})
  small = slimming.slimming(keep=3 / 9).prune(model)
  kept = {
    name: small.variables['params'][name]['norm1']['scale'] for name in scales
  }
  np.testing.assert_allclose(kept['group1.block1'], [1, 0.9, 0.8])
  np.testing.assert_allclose(kept['group1.block2'], [-0.2])
  assert slimming.slimming(keep=1.0).prune(model).network.stages == tuple(
    s._replace(module=s.module.clone(inner=len(scales[s.name])))
    if s.name in scales
    else s
    for s in model.network.stages
  )


def test_slimming_halves_the_channels_of_every_kind(models):
  for name in ('preactivation', 'bottleneck', 'dense', 'vgg'):
    small = slimming.slimming(keep=0.5).prune(models[name])
    before, after = (
      sum(s.size for s in channels.channel_sets(m))
      for m in (models[name], small)
    )
    assert abs(after - before / 2) <= 2
    assert np.isfinite(staged.apply(*small, IMAGE)).all()


def test_scales_get_the_subgradient_of_their_sum():
  params = {'norm': {'scale': jnp.array([2.0, -3.0, 0.0]), 'bias': jnp.ones(3)}}
  optimizer = slimming.sparse_scales(optax.sgd(1.0), 0.1)
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  np.testing.assert_allclose(updates['norm']['scale'], [-0.1, 0.1, 0])
  np.testing.assert_array_equal(updates['norm']['bias'], np.zeros(3))


def test_a_pruned_network_trains_under_distillation(
  student, teacher, recipe, dataset
):
  small = filters.filters(keep=0.5).prune(student)
  optimizer = slimming.slim(
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
    (lambda: filters.filters(keep=0.0), r'0\.0 is no share in \(0, 1\]'),
    (lambda: filters.filters(keep=(0.5, 1.2)), r'1\.2 is no share'),
    (lambda: filters.filters(keep=float('nan')), 'nan is no share'),
    (lambda: filters.filters(keep=True), 'True is no share'),
    (lambda: slimming.slimming(keep=-0.5), r'-0\.5 is no share'),
    (
      lambda: slimming.slim(optimizer=None, strength=-1.0),
      r'strength: .* got -1\.0',
    ),
    (
      lambda: slimming.slim(optimizer=None, strength=float('nan')),
      'strength: .* got nan',
    ),
  ],
)
def test_wrong_shares_are_refused(function, words):
  with pytest.raises(UsageError, match=words):
    function()


@pytest.mark.parametrize(
  ('make', 'options', 'words'),
  [
    (
      filters.filters,
      {'keep': 0.5, 'skip': ('group1.block3',)},
      r"skip 'group1\.block3' \(nearest: 'group1\.block[12]'\)",
    ),
    (slimming.slimming, {'keep': 0.5, 'skip': ('gruop1',)}, "skip 'gruop1'"),
    (slimming.slimming, {'keep': 0.5, 'skip': ('group1',)}, 'names every'),
    (
      filters.filters,
      {'keep': 0.2},
      r"0\.2 of the 4 filters of 'group1\.block1' are none; at least 0\.25",
    ),
    (filters.filters, {'keep': (0.5, 0.5)}, '2 entries; the network has 1'),
  ],
)
def test_a_network_that_does_not_fit_is_refused(make, options, words):
  shapes = staged.variable_shapes(NETWORKS['basic'], {'image': IMAGE})
  with pytest.raises(UsageError, match=words):
    make(**options).check(Model(NETWORKS['basic'], shapes))


def test_the_share_that_a_refusal_names_leaves_a_filter():
  """A third, printed with four digits, is a little below a third."""
  network = chain(resnet.BasicBlock(4, 3))
  model = Model(network, staged.variable_shapes(network, {'image': IMAGE}))
  with pytest.raises(UsageError, match=r'at least 0\.3334 leaves'):
    filters.filters(keep=0.3).check(model)
  assert [*filters.filters(keep=0.3334).check(model).values()] == [1]


def test_a_network_whose_filters_must_all_stay_is_refused():
  """Of a DenseNet without bottlenecks every output is read by all behind."""
  network = normed(densenet.DenseLayer(4))
  model = Model(network, staged.variable_shapes(network, {'image': IMAGE}))
  with pytest.raises(UsageError, match="'filters' finds no layer"):
    filters.filters(keep=0.5).check(model)
  assert slimming.slimming(keep=0.5).check(model)


@pytest.mark.parametrize(
  ('kept', 'words'),
  [
    ({('group1.block1', 'inner'): []}, "no channel of 'group1.block1'"),
    (
      {('group1.block1', 'width'): [0]},
      "unknown set of channels 'group1.block1 width'.*'group1.block1 inner'",
    ),
  ],
)
def test_channels_that_cannot_be_kept_are_refused(kept, words, models):
  with pytest.raises(UsageError, match=words):
    channels.keep_channels(models['basic'], kept)


def test_a_network_of_one_piece_is_refused():
  network = staged.opaque(lambda *a: {}, lambda *a: (0, {}))
  with pytest.raises(UsageError, match='no stage of the network has channels'):
    filters.filters(keep=0.5).check(Model(network, {'params': {}}))
