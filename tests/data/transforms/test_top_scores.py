"""Files of the largest scores give back what was kept, and the rest evenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxdistill.data.transforms import top_scores
from jaxdistill.data.transforms.top_scores import TopScores


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_probabilities_of_the_largest_are_exact_and_the_rest_is_even(
  temperature,
):
  logits = 4 * np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
  top = TopScores(5, 40, temperature)
  kept = np.asarray(top_scores.truncated(jnp.asarray(logits), top))
  largest = np.argsort(-logits, -1)[:, :5]
  is_kept = np.zeros(logits.shape, bool)
  np.put_along_axis(is_kept, largest, True, -1)
  np.testing.assert_array_equal(kept[is_kept], logits[is_kept])
  probabilities, expected = (
    scipy.special.softmax(x / temperature, -1) for x in (kept, logits)
  )
  np.testing.assert_allclose(
    probabilities[is_kept], expected[is_kept], rtol=1e-5
  )
  rest = probabilities[~is_kept].reshape(6, 35)
  np.testing.assert_allclose(rest, rest[:, :1].repeat(35, 1), rtol=1e-5)
  np.testing.assert_allclose(
    rest.sum(-1), expected[~is_kept].reshape(6, 35).sum(-1), rtol=1e-4
  )


def test_a_file_holds_the_numbers_of_all_classes_exactly():
  generator = np.random.default_rng(1)
  logits = generator.normal(size=(3, 2, 60_000)).astype(np.float16)
  top = TopScores(7, 60_000, 2.0)
  truncate = jax.jit(top_scores.truncated, static_argnums=1)
  kept = np.asarray(truncate(logits.astype(np.float32), top))
  rows = top_scores.packed(kept, top)
  assert rows.dtype == np.uint16 and rows.shape == (3, 2, top.width)
  read = np.asarray(top_scores.unpacked(jnp.asarray(rows), top))
  np.testing.assert_array_equal(read, kept.astype(np.float16))
