"""When masks stop learning, and the search for alpha."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.methods.masked_layer import mask_phases, mask_search, noise
from jaxdistill.methods.masked_layer.mask_phases import Masks
from jaxdistill.methods.masked_layer.method import masked_layer
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
STEPS_PER_EPOCH = 4


def test_masks_learn_until_their_loss_is_flat(recipe, carry, dataset, start):
  """The largest number of epochs allows 1,600 steps."""

  def learn(epochs):
    method = masked_layer(recipe, masks=Masks(alpha=3e-3, epochs=epochs))
    return loop.fit(method[:2], carry, dataset, options=SILENT)

  settled = learn(400.0)
  assert settled.steps % mask_phases.WINDOW == 0
  assert 4 * mask_phases.WINDOW <= settled.steps < 400 * STEPS_PER_EPOCH
  # They would hardly have moved in one more window at the final rate.
  longer = learn(settled.steps / STEPS_PER_EPOCH).carry['masks'].variables
  short = learn(10.0).carry['masks'].variables
  masks = settled.carry['masks'].variables
  means = [
    np.mean([float(m.mean()) for m in noise.masks_of(tree).values()])
    for tree in (masks, longer, short)
  ]
  assert means[0] == means[1] < means[2] - 0.05


@pytest.mark.parametrize('limit', [3e-5, 4e-4, 2e-3, 7e-2])
def test_the_search_finds_the_largest_alpha_that_costs_little(
  limit, recipe, carry, start
):
  """Here the noise costs 2 points at `limit`, more above and less below."""
  method = masked_layer(recipe, masks=Masks(max_drop=2.0))
  started = start(method, carry)
  phase = method[1](started)
  state, frozen = phase.init(jax.random.key(0), started)
  steps = phase.step.__self__

  def tagged(alpha):
    return jax.tree.map(lambda m: jnp.full_like(m, alpha), frozen['initial'])

  for _ in range(mask_search.TRIALS):
    drop = 0.02 * state.alpha / limit
    trial = state.trial._replace(
      masks=tagged(state.alpha),
      scores=jnp.stack([0.9 - drop, jnp.float32(0.9)]) * 5,
      measured=jnp.int32(5),
    )
    state = steps._concluded(state._replace(trial=trial), frozen['initial'])
  low, high = map(float, state.bounds)
  assert low <= limit <= high
  assert high / low == pytest.approx(
    (mask_search.ALPHAS[1] / mask_search.ALPHAS[0]) ** (1 / 2**4), rel=1e-4
  )
  tried = [float(a) for a, _, _, _ in state.history]
  kept = max([a for a in tried if a <= limit], default=min(tried))
  for mask in noise.masks_of(state.best).values():
    np.testing.assert_allclose(mask, kept, rtol=1e-5)
  report = mask_search._report(state, 'top1')
  assert report['alpha'] == pytest.approx(kept, rel=1e-3)
  assert [t['costs little'] for t in report['trials']] == [
    a <= limit for a in tried
  ]


@pytest.fixture(scope='module')
def quick_method(recipe):
  """Two epochs for each alpha: 4 times (8 steps and 4 measured batches)."""
  return masked_layer(recipe, masks=Masks(epochs=2.0, max_drop=5.0))[:2]


@pytest.fixture(scope='module')
def quick(quick_method, carry, dataset):
  return loop.fit(quick_method, carry, dataset, options=SILENT)


def test_a_trial_begins_with_the_masks_of_the_last_one_that_cost_little(
  quick, carry
):
  report = quick.reports['mask_search.json']
  assert quick.steps == 4 * (8 + 4)
  alphas = [trial['alpha'] for trial in report['trials']]
  low, high = mask_search.ALPHAS
  for trial in report['trials']:
    assert trial['alpha'] == pytest.approx((low * high) ** 0.5, rel=1e-3)
    drop = trial['clean top1'] - trial['noised top1']
    assert trial['costs little'] == (drop <= 0.05)
    low, high = (
      (trial['alpha'], high) if trial['costs little'] else (low, trial['alpha'])
    )
  assert report['alpha'] in alphas
  # Adam moves an entry by at most its rate: 8 steps lower a mask from 0.9 to
  # 0.74, so lower values come from several trials in a row.
  lowest = min(
    float(m.min())
    for m in noise.masks_of(quick.carry['masks'].variables).values()
  )
  kept = [t for t in report['trials'] if t['costs little']]
  assert 0.9 - 0.16 * max(1, len(kept)) - 1e-3 <= lowest
  assert (lowest < 0.73) == (len(kept) > 1)


@pytest.mark.parametrize('count', [5, 10, 30])
def test_a_resumed_search_ends_with_the_same_bits(
  count, quick_method, quick, carry, dataset, resumed, assert_same, tmp_path
):
  """Stopped while masks learn, while they are scored, and in a later trial."""
  again = resumed(quick_method, carry, dataset, count, tmp_path)
  assert_same(again.carry['masks'].variables, quick.carry['masks'].variables)
  assert again.reports == quick.reports
  assert again.steps == quick.steps


def test_a_validation_split_scores_the_masks(recipe, carry, start):
  """Without one, training images do."""
  validation = recipe.validation._replace(batch_size=2)
  held_out = recipe._replace(validation=validation, validation_steps=3)
  for given, subset, size in (
    (held_out, 'validation', 2),
    (recipe, 'train', 8),
  ):
    method = masked_layer(given)
    phase = method[1](start(method, carry))
    stream = phase.streams['measure']
    assert (stream.subset, stream.batch_size) == (subset, size)
    measured = given.validation_steps or given.steps_per_epoch
    learned = round(20.0 * given.steps_per_epoch)
    assert phase.num_steps == mask_search.TRIALS * (learned + measured)
