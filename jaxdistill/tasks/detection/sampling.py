"""Draws the anchors or regions of an image that count in the loss."""

import jax
import jax.numpy as jnp

from jaxdistill.core.types import Array


def sample(
  rng: Array,
  is_positive: Array,
  is_negative: Array,
  *,
  count: int,
  share: float,
) -> Array:
  """Returns which rows are drawn, booleans `[N]`.

  At most `share * count` positives are drawn, and negatives fill up the rest of
  `count`. If there are too few negatives, fewer rows are drawn.

  Args:
    rng: the random key.
    is_positive: which rows are positives, `[N]`.
    is_negative: which rows are negatives, `[N]`.
    count: the largest number of rows that are drawn.
    share: the largest number of positives as a fraction of `count`.
  """
  noise = jax.random.uniform(rng, is_positive.shape)
  most = int(count * share)
  positives = _drawn(noise, is_positive, most, most)
  left = count - positives.sum()
  return positives | (_drawn(noise, is_negative, count, left))


def _drawn(
  noise: Array, is_eligible: Array, most: int, limit: Array | int
) -> Array:
  """Returns which rows are drawn: at most `limit`, which is at most `most`."""
  most = min(most, len(noise))
  best, rows = jax.lax.top_k(jnp.where(is_eligible, noise, -1.0), most)
  is_drawn = (best >= 0) & (jnp.arange(most) < limit)
  return jnp.zeros(len(noise), bool).at[rows].set(is_drawn)
