"""Noise on activations and weights, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import evaluation
from jaxdistill.analysis import curves, perturbation
from jaxdistill.data import augment, digits
from jaxdistill.methods import joint
from jaxdistill.networks import layers, noisy, resnet, staged
from jaxdistill.recipes import recipe as make_recipe
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

BLOCKS = ('group1.block1', 'group2.block1')


@pytest.fixture(scope='module')
def trained():
  """A network that tells digits apart, and 100 of them."""
  dataset = digits.digits(validation=100)
  network = Network(
    (
      Stage('stem', layers.ConvUnit(4, stride=2)),
      Stage(BLOCKS[0], resnet.BasicBlock(4)),
      Stage(BLOCKS[1], resnet.BasicBlock(8, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(10)),
    )
  )
  task = classification.classification()
  recipe = make_recipe(dataset, task, epochs=8, batch_size=64)
  image = {'image': recipe.example['image']}
  model = Model(network, staged.init(network, jax.random.key(0), image))
  fitted = loop.fit(
    joint.supervised(recipe),
    {'student': model},
    dataset,
    options=loop.Options(log=log.Log(show=False)),
  )
  sample = perturbation.Sample(
    dataset.splits['validation'],
    task,
    augment.standardize(dataset.mean, dataset.std),
  )
  return fitted.carry['student'], sample


def test_noise_is_added_to_the_outputs_of_the_chosen_stages(trained):
  model, _ = trained
  image = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
  clean, _ = staged.run(*model, {'image': image})
  found = perturbation.perturbed(
    *model, image, {BLOCKS[0]: jnp.float32(0.3)}, jax.random.key(0)
  )
  noise = found[BLOCKS[0]] - clean[BLOCKS[0]]
  assert abs(float(noise.std()) - 0.3) < 0.05
  assert abs(float(noise.mean())) < 0.1
  np.testing.assert_array_equal(found['stem'], clean['stem'])
  np.testing.assert_array_equal(found['group1'], found[BLOCKS[0]])
  # What comes later is computed from it.
  later, _ = staged.run(*model, {BLOCKS[0]: found[BLOCKS[0]]}, only=BLOCKS[1:])
  np.testing.assert_allclose(
    found[BLOCKS[1]], later[BLOCKS[1]], rtol=1e-5, atol=1e-6
  )


def test_small_noise_costs_nothing_and_large_noise_all(trained):
  model, sample = trained
  lines = perturbation.thresholding(
    model, sample, epsilons=(0.0, 1e-4, 100.0), counts=(1, 2), draws=2
  )
  assert set(lines) == {'1 blocks', '2 blocks'}
  accuracy = 100 * evaluation.evaluate(model, *sample)['top1']
  assert accuracy > 80
  for line in lines.values():
    assert [p.x for p in line] == [0.0, 1e-4, 100.0]
    assert line[0].mean == line[0].sd == 0.0
    assert abs(line[1].mean) <= 1.0
    assert line[2].mean < 25 - accuracy
  # More blocks cost more.
  middle = perturbation.thresholding(
    model, sample, epsilons=(0.5,), counts=(1, 2), draws=4
  )
  assert middle['2 blocks'][0].mean < middle['1 blocks'][0].mean
  assert curves.draw(lines, xlabel='noise').axes[0].get_xlabel() == 'noise'


def test_the_blocks_of_a_noisy_network_are_perturbed_once(trained):
  model, sample = trained
  louder = Model(noisy.noisy(model.network, sigma=9.0), model.variables)
  ours, theirs = (
    perturbation.thresholding(m, sample, epsilons=(0.0,), draws=1)
    for m in (louder, model)
  )
  assert ours == theirs
  assert set(ours) == {'2 blocks'}


def test_the_noise_of_each_kernel_is_tuned_to_its_drop(trained):
  model, sample = trained
  found = perturbation.accumulation(
    model, sample, drop=0.05, draws=2, halvings=5
  )
  assert found.layers[0] == 'stem/conv'
  assert len(found.layers) == 1 + 2 + 3  # a projection in the second block
  # One image of 100 is 1 %, and the bisection has 2**5 steps.
  assert all(1 <= drop <= 11 for drop in found.single)
  np.testing.assert_allclose(found.summed, np.cumsum(found.single))
  np.testing.assert_allclose(found.together[0], found.single[0])
  assert found.together[-1] > max(found.single)
  bars = perturbation.draw_accumulation(found).axes[0].patches
  assert len(bars) == 6


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda m, s: perturbation.thresholding(
        m, s, epsilons=(1,), blocks=('x',)
      ),
      "unknown stage 'x'",
    ),
    (
      lambda m, s: perturbation.thresholding(m, s, epsilons=(1,), counts=(3,)),
      'counts: 3; there are 2 blocks',
    ),
    (
      lambda m, s: perturbation.thresholding(
        m._replace(network=Network(m.network.stages[:1])), s, epsilons=(1,)
      ),
      'blocks: none; the stages are stem',
    ),
    (
      lambda m, s: perturbation.thresholding(m, s, epsilons=(-1.0,)),
      'epsilons of at least 0',
    ),
    (
      lambda m, s: perturbation.accumulation(m, s, drop=2.0),
      r'drop: 2.0 is no share in \(0, 1\)',
    ),
  ],
)
def test_what_cannot_be_perturbed_is_refused(trained, call, message):
  with pytest.raises(UsageError, match=message):
    call(*trained)
