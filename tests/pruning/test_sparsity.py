"""How many weights become zero, and which."""

import jax
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.pruning import sparsity

RNG = np.random.default_rng(0)


def test_the_cubic_schedule_agrees_with_values_computed_by_hand():
  """0.8 - 0.8 * (1 - t / 10)**3."""
  steps = np.array([0, 5, 10, 99])
  values = sparsity.cubic_sparsity(steps, final=0.8, steps=10)
  np.testing.assert_allclose(values, [0, 0.7, 0.8, 0.8], atol=1e-6)


def test_the_cubic_schedule_begins_at_its_initial_sparsity():
  """0.8 - 0.5 * (1 - t / 10)**3."""
  values = [
    sparsity.cubic_sparsity(t, final=0.8, steps=10, initial=0.3)
    for t in (0, 5, 10)
  ]
  np.testing.assert_allclose(values, [0.3, 0.7375, 0.8], rtol=1e-6)


@pytest.mark.parametrize('fraction', [0.0, 0.1, 0.3, 0.6, 0.7, 0.95])
def test_the_smallest_magnitudes_are_masked(fraction):
  kernel = RNG.normal(size=(3, 3, 2, 10)).astype(np.float32)
  mask = np.asarray(jax.jit(sparsity.magnitude_mask)(kernel, fraction))
  assert (mask.shape, mask.dtype) == (kernel.shape, bool)
  assert (~mask).sum() == round(fraction * kernel.size)
  size = np.abs(kernel)
  if fraction:
    assert size[~mask].max() < size[mask].min()


def test_among_equal_magnitudes_the_first_are_masked():
  kernel = np.array([1.0, -1.0, 1.0, -1.0])
  mask = sparsity.magnitude_mask(kernel, 0.5)
  np.testing.assert_array_equal(mask, [False, False, True, True])


def test_one_weight_always_stays():
  mask = sparsity.magnitude_mask(np.array([3.0, -5.0, 4.0]), 1.0)
  np.testing.assert_array_equal(mask, [False, True, False])


def test_global_masks_compare_all_kernels_and_empty_none_of_them():
  small, large = np.array([[0.1, -0.3]]), np.array([1.0, 2.0, -4.0, 3.0])
  masks = sparsity.global_magnitude_masks([small, large], 0.5)
  # The first three of 0.1, 0.3, 1, 2, 3, 4 would go, but 0.3 is the largest
  # weight of its kernel.
  np.testing.assert_array_equal(masks[0], [[False, True]])
  np.testing.assert_array_equal(masks[1], [False, True, True, True])


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'final': 1.0}, r'final: .* in \[0, 1\), got 1\.0'),
    ({'final': float('nan')}, 'final: .* got nan'),
    ({'final': True}, 'final: .* got True'),
    ({'initial': -0.1}, r'initial: .* got -0\.1'),
    ({'steps': 0}, 'steps: .* got 0'),
  ],
)
def test_an_argument_out_of_its_range_is_refused(arguments, words):
  with pytest.raises(UsageError, match=words):
    sparsity.cubic_sparsity(0, **{'final': 0.5, 'steps': 10, **arguments})
