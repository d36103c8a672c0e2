"""Noise on activations and weights, and the accuracy that it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.analysis import curves
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import digits
from jaxdistill.data.transforms import augment
from jaxdistill.methods.neighbourhood import perturbation
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet
from jaxdistill.networks.surgery import noisy
from jaxdistill.phases import joint
from jaxdistill.phases.recipes import recipe as make_recipe
from jaxdistill.tasks import classification, evaluation
from jaxdistill.training import log, loop

BLOCKS = ('group1.block1', 'group2.block1')


@pytest.fixture(scope='module')
def trained():
  """A network that classifies digits, and 100 digits."""
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
  task = classification()
  recipe = make_recipe(dataset, task, epochs=8, batch_size=64)
  image = {'image': recipe.example['image']}
  model = Model(network, graph.init(network, jax.random.key(0), image))
  fitted = loop.fit(
    joint.supervised(recipe),
    {'student': model},
    dataset,
    options=loop.FitOptions(log=log.Log(show=False)),
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
  clean, _ = graph.run(*model, {'image': image})
  features = perturbation.perturbed(
    *model, image, {BLOCKS[0]: jnp.float32(0.3)}, jax.random.key(0)
  )
  noise = features[BLOCKS[0]] - clean[BLOCKS[0]]
  assert abs(float(noise.std()) - 0.3) < 0.05
  assert abs(float(noise.mean())) < 0.1
  np.testing.assert_array_equal(features['stem'], clean['stem'])
  np.testing.assert_array_equal(features['group1'], features[BLOCKS[0]])
  # Later features are computed from the noised ones.
  later, _ = graph.run(
    *model, {BLOCKS[0]: features[BLOCKS[0]]}, only=BLOCKS[1:]
  )
  np.testing.assert_allclose(
    features[BLOCKS[1]], later[BLOCKS[1]], rtol=1e-5, atol=1e-6
  )


def test_small_noise_costs_nothing_and_large_noise_costs_all_accuracy(trained):
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


def test_the_noise_stages_of_a_noisy_network_are_not_perturbed(trained):
  model, sample = trained
  louder = Model(noisy.noisy(model.network, sigma=9.0), model.variables)
  noisy_lines, plain_lines = (
    perturbation.thresholding(m, sample, epsilons=(0.0,), draws=1)
    for m in (louder, model)
  )
  assert noisy_lines == plain_lines
  assert set(noisy_lines) == {'2 blocks'}


def test_the_noise_of_each_kernel_is_tuned_to_its_drop(trained):
  model, sample = trained
  errors = perturbation.accumulation(
    model, sample, drop=0.05, draws=2, halvings=5
  )
  assert errors.layers[0] == 'stem/conv'
  # The second block has a projection as its third layer.
  assert len(errors.layers) == 1 + 2 + 3
  # One image of 100 is 1 %, and the bisection finds 2**-5 of its range.
  assert all(1 <= drop <= 11 for drop in errors.single)
  np.testing.assert_allclose(errors.summed, np.cumsum(errors.single))
  np.testing.assert_allclose(errors.together[0], errors.single[0])
  assert errors.together[-1] > max(errors.single)
  bars = perturbation.draw_accumulation(errors).axes[0].patches
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
      r'counts: expected .* in \[1, 2\], got 3',
    ),
    (
      lambda m, s: perturbation.thresholding(
        m._replace(network=Network(m.network.stages[:1])), s, epsilons=(1,)
      ),
      'blocks: the network has no groups; .* stages: stem',
    ),
    (
      lambda m, s: perturbation.thresholding(m, s, epsilons=(-1.0,)),
      'epsilons: expected a number of at least 0',
    ),
    (
      lambda m, s: perturbation.accumulation(m, s, drop=2.0),
      r'drop: expected a number in \(0, 1\), got 2.0',
    ),
  ],
)
def test_invalid_perturbations_are_refused(trained, call, message):
  with pytest.raises(UsageError, match=message):
    call(*trained)
