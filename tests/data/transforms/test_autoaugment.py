"""Policies: which operations are applied to an image, and how often."""

import jax
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.transforms import augment, autoaugment, operations

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (64, 6, 6, 3), np.uint8)
BATCH = {'image': jax.numpy.asarray(IMAGE), 'label': jax.numpy.arange(64)}


def outcome(function, seed=0):
  return np.asarray(jax.jit(function)(jax.random.key(seed), BATCH)['image'])


@pytest.mark.parametrize(
  'function',
  [autoaugment.autoaugment(), autoaugment.randaugment()],
  ids=['autoaugment', 'randaugment'],
)
def test_the_result_depends_on_the_key_and_labels_do_not_change(function):
  first = jax.jit(function)(jax.random.key(1), BATCH)
  assert first['image'].dtype == np.uint8
  np.testing.assert_array_equal(first['label'], BATCH['label'])
  np.testing.assert_array_equal(first['image'], outcome(function, 1))
  other = outcome(function, 2)
  assert (np.asarray(first['image']) != other).any((1, 2, 3)).mean() > 0.5


def test_the_learned_policy_is_the_published_one():
  policy = autoaugment.cifar10_policy()
  assert policy.operation.shape == (25, 2)
  rotate, translate = policy.operation[1]
  assert operations.OPERATIONS[rotate] == 'rotate'
  assert operations.OPERATIONS[translate] == 'translate_x'
  np.testing.assert_allclose(policy.probability[1], [0.7, 0.3])
  # Level 2 of 9 up to 30 degrees, and level 9 of 9 up to 150/331.
  np.testing.assert_allclose(policy.amount[1], [30 * 2 / 9, 150 / 331])


# For each operation in the published list: how often it occurs, the sum of its
# probabilities in tenths, and the sum of its levels.
TOTALS = {
  'autocontrast': (7, 50, 26),
  'brightness': (4, 23, 25),
  'color': (5, 29, 27),
  'contrast': (2, 8, 13),
  'equalize': (9, 47, 41),
  'invert': (3, 2, 13),
  'posterize': (1, 3, 7),
  'rotate': (1, 7, 2),
  'sharpness': (5, 28, 24),
  'shear_y': (2, 7, 15),
  'solarize': (4, 19, 18),
  'translate_x': (2, 8, 17),
  'translate_y': (5, 34, 39),
}


def test_the_sums_of_the_learned_table_are_those_of_the_published_one():
  totals = {}
  for name, tenths, level in sum(autoaugment.CIFAR10, ()):
    before = totals.get(name, (0, 0, 0))
    totals[name] = tuple(np.add(before, (1, tenths, level)).tolist())
  assert totals == TOTALS
  # Sums weighted by the position in the list also check the order.
  positions = np.arange(1, 26)
  numbers = np.array([[step[1:] for step in x] for x in autoaugment.CIFAR10])
  weighted = (positions[:, None, None] * numbers).sum(0)
  np.testing.assert_array_equal(weighted, [[1884, 1850], [1746, 1475]])


def test_a_random_policy_keeps_the_pairs_and_depends_on_its_seed():
  learned, one, again, two = (
    autoaugment.cifar10_policy(seed) for seed in (None, 1, 1, 2)
  )
  np.testing.assert_array_equal(one.operation, learned.operation)
  np.testing.assert_array_equal(one.amount, again.amount)
  np.testing.assert_array_equal(one.probability, again.probability)
  assert (one.probability != two.probability).any()
  assert (one.amount != learned.amount).any()
  assert set(np.round(10 * one.probability.ravel())) <= set(range(11))


def test_the_random_policy_of_a_seed_never_changes():
  """Published results name only the seed."""
  drawn = autoaugment.cifar10_policy(0)
  np.testing.assert_allclose(
    drawn.probability[:3], [[0.9, 0.7], [0.5, 0.2], [0.3, 0]]
  )
  # Rotation by level 4, translation by level 9.
  np.testing.assert_allclose(drawn.amount[1], [30 * 4 / 9, 150 / 331])


def policy(*chains):
  """Makes a policy of chains of (operation, probability, amount)."""
  parts = [[[step[i] for step in chain] for chain in chains] for i in range(3)]
  number = np.vectorize(operations.NUMBER.get)(parts[0])
  return autoaugment.Policy(number, np.array(parts[1]), np.array(parts[2]))


def test_the_operations_of_a_chain_are_applied_in_order():
  chain = policy([('invert', 1.0, 0.0), ('solarize', 1.0, 100.0)])
  inverted = 255 - IMAGE.astype(int)
  expected = np.where(inverted >= 100, 255 - inverted, inverted)
  out = outcome(autoaugment.apply_policy(chain))
  np.testing.assert_array_equal(out, expected)


def test_each_image_draws_its_chain_and_whether_it_is_applied():
  chains = policy([('invert', 0.5, 0.0)], [('posterize', 1.0, 4.0)])
  out = outcome(autoaugment.apply_policy(chains))
  inverted = (out == 255 - IMAGE).all((1, 2, 3)).sum()
  coarse = (out == IMAGE // 16 * 16).all((1, 2, 3)).sum()
  same = (out == IMAGE).all((1, 2, 3)).sum()
  assert inverted + coarse + same == 64
  # The means are 16, 32 and 16; 3 standard deviations are 10, 12 and 10.
  assert 6 <= inverted <= 26 and 20 <= coarse <= 44 and 6 <= same <= 26


def test_the_direction_of_an_operation_is_drawn_per_image():
  chain = policy([('translate_x', 1.0, 1 / 6)])
  out = outcome(autoaugment.apply_policy(chain, fill=0))
  left = (out[:, :, :-1] == IMAGE[:, :, 1:]).all((1, 2, 3))
  right = (out[:, :, 1:] == IMAGE[:, :, :-1]).all((1, 2, 3))
  assert (left ^ right).all() and 20 <= left.sum() <= 44
  assert (out[left][:, :, -1] == 0).all()


def test_randaugment_of_strength_0_only_stretches_grey_levels():
  """Autocontrast and equalize have no strength."""
  grey = jax.numpy.asarray(IMAGE // 2)
  function = autoaugment.randaugment(count=1, magnitude=0)
  out = jax.jit(function)(jax.random.key(0), {'image': grey})['image']
  same = np.asarray(out == grey).all((1, 2, 3))
  # 12 of 14 operations change nothing.
  assert same.sum() >= 45 and not same.all()


def test_autoaugment_can_follow_crop_and_flip():
  whole = augment.chain(augment.crop_flip(), autoaugment.autoaugment())
  image = {'image': BATCH['image']}
  out = jax.eval_shape(whole, jax.random.key(0), image)['image']
  assert (out.shape, out.dtype) == (IMAGE.shape, np.uint8)


@pytest.mark.parametrize(
  ('function', 'words'),
  [
    (lambda: autoaugment.autoaugment(seed=-1), r'seed: .* got -1'),
    (lambda: autoaugment.autoaugment(fill=256), r'fill: .* got 256'),
    (lambda: autoaugment.randaugment(count=0), r'count: .* got 0'),
    (
      lambda: autoaugment.randaugment(magnitude=31),
      r'magnitude: .* \[0, 30\], got 31',
    ),
  ],
)
def test_wrong_choices_are_rejected(function, words):
  with pytest.raises(UsageError, match=words):
    function()
