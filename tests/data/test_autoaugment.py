"""Policies: which operations an image gets, and how often."""

import jax
import numpy as np
import pytest

from jaxdistill.data import augment, autoaugment, operations
from jaxdistill.types import UsageError

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
def test_the_key_decides_under_jit_and_labels_stay(function):
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
  # Level 2 of 30 degrees in nine steps, level 9 of 150/331.
  np.testing.assert_allclose(policy.amount[1], [30 * 2 / 9, 150 / 331])


# Of the published list: how often an operation stands there, the sums of its
# probabilities in tenths and of its levels.
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


def test_the_learned_table_adds_up_as_the_published_one():
  found = {}
  for name, tenths, level in sum(autoaugment.CIFAR10, ()):
    before = found.get(name, (0, 0, 0))
    found[name] = tuple(np.add(before, (1, tenths, level)).tolist())
  assert found == TOTALS
  # Weighted by the place in the list, so that order counts.
  places = np.arange(1, 26)
  numbers = np.array([[step[1:] for step in x] for x in autoaugment.CIFAR10])
  weighted = (places[:, None, None] * numbers).sum(0)
  np.testing.assert_array_equal(weighted, [[1884, 1850], [1746, 1475]])


def test_a_random_policy_keeps_the_pairs_and_follows_its_seed():
  learned, one, again, two = (
    autoaugment.cifar10_policy(seed) for seed in (None, 1, 1, 2)
  )
  np.testing.assert_array_equal(one.operation, learned.operation)
  np.testing.assert_array_equal(one.amount, again.amount)
  np.testing.assert_array_equal(one.probability, again.probability)
  assert (one.probability != two.probability).any()
  assert (one.amount != learned.amount).any()
  assert set(np.round(10 * one.probability.ravel())) <= set(range(11))


def test_the_random_policy_of_a_seed_stays_what_it_is():
  """Results name the seed alone."""
  found = autoaugment.cifar10_policy(0)
  np.testing.assert_allclose(
    found.probability[:3], [[0.9, 0.7], [0.5, 0.2], [0.3, 0]]
  )
  # Rotation by level 4, translation by level 9.
  np.testing.assert_allclose(found.amount[1], [30 * 4 / 9, 150 / 331])


def policy(*chains):
  """Of (operation, probability, amount) each."""
  parts = [[[step[i] for step in chain] for chain in chains] for i in range(3)]
  number = np.vectorize(operations.NUMBER.get)(parts[0])
  return autoaugment.Policy(number, np.array(parts[1]), np.array(parts[2]))


def test_operations_of_a_chain_follow_each_other():
  chain = policy([('invert', 1.0, 0.0), ('solarize', 1.0, 100.0)])
  inverted = 255 - IMAGE.astype(int)
  wanted = np.where(inverted >= 100, 255 - inverted, inverted)
  found = outcome(autoaugment.apply_policy(chain))
  np.testing.assert_array_equal(found, wanted)


def test_each_image_draws_its_chain_and_whether_it_is_applied():
  chains = policy([('invert', 0.5, 0.0)], [('posterize', 1.0, 4.0)])
  found = outcome(autoaugment.apply_policy(chains))
  inverted = (found == 255 - IMAGE).all((1, 2, 3)).sum()
  coarse = (found == IMAGE // 16 * 16).all((1, 2, 3)).sum()
  same = (found == IMAGE).all((1, 2, 3)).sum()
  assert inverted + coarse + same == 64
  # 16, 32 and 16 expected; 3 standard deviations are 10, 12 and 10.
  assert 6 <= inverted <= 26 and 20 <= coarse <= 44 and 6 <= same <= 26


def test_directions_are_drawn():
  chain = policy([('translate_x', 1.0, 1 / 6)])
  found = outcome(autoaugment.apply_policy(chain, fill=0))
  left = (found[:, :, :-1] == IMAGE[:, :, 1:]).all((1, 2, 3))
  right = (found[:, :, 1:] == IMAGE[:, :, :-1]).all((1, 2, 3))
  assert (left ^ right).all() and 20 <= left.sum() <= 44
  assert (found[left][:, :, -1] == 0).all()


def test_randaugment_of_no_strength_moves_nothing():
  """What is left are autocontrast and equalize, and a threshold of 256."""
  grey = jax.numpy.asarray(IMAGE // 2)
  function = autoaugment.randaugment(count=1, magnitude=0)
  found = jax.jit(function)(jax.random.key(0), {'image': grey})['image']
  same = np.asarray(found == grey).all((1, 2, 3))
  # 12 of 14 operations.
  assert same.sum() >= 45 and not same.all()


def test_it_stands_in_a_chain_with_the_crop():
  whole = augment.chain(augment.crop_flip(), autoaugment.autoaugment())
  image = {'image': BATCH['image']}
  out = jax.eval_shape(whole, jax.random.key(0), image)['image']
  assert (out.shape, out.dtype) == (IMAGE.shape, np.uint8)


@pytest.mark.parametrize(
  ('function', 'words'),
  [
    (lambda: autoaugment.autoaugment(seed=-1), r'seed: -1'),
    (lambda: autoaugment.autoaugment(fill=256), r'fill: 256'),
    (lambda: autoaugment.randaugment(count=0), r'count: 0'),
    (
      lambda: autoaugment.randaugment(magnitude=31),
      r'magnitude: 31 .* 0 to 30',
    ),
  ],
)
def test_wrong_choices_are_refused(function, words):
  with pytest.raises(UsageError, match=words):
    function()
