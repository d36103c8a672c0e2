"""The largest scores of an image, as files hold them.

A teacher of many classes gives most of them tiny probabilities. A file then
holds the k largest logits and one number r for all other classes,

  r = T log mean_{i not among them} exp(z_i / T),

with which the others together keep their probability at the temperature T. At
T, the probabilities of the k classes are thus exact, and what is left is spread
evenly over the other classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.types import Array

# Numbers of classes are stored in 16 bits.
MOST_CLASSES = 1 << 16


class TopScores(NamedTuple):
  """Which scores are kept.

  Attributes:
    kept: the number of the largest logits, k.
    num_classes: the number of classes.
    temperature: the temperature T.
  """

  kept: int
  num_classes: int
  temperature: float

  @property
  def width(self) -> int:
    """The number of 16-bit numbers for an image: k logits, k classes and r."""
    return 2 * self.kept + 1


def truncated(logits: Array, top: TopScores) -> Array:
  """Returns logits in which all but the largest are replaced by r.

  Args:
    logits: `[..., num_classes]`.
    top: which scores are kept.
  """
  values, classes = jax.lax.top_k(logits, top.kept)
  others = jnp.put_along_axis(logits, classes, -jnp.inf, -1, inplace=False)
  total = jax.nn.logsumexp(others / top.temperature, axis=-1, keepdims=True)
  mean = total - jnp.log(float(top.num_classes - top.kept))
  rest = jnp.broadcast_to(top.temperature * mean, logits.shape)
  return jnp.put_along_axis(rest, classes, values, -1, inplace=False)


def packed(logits: np.ndarray, top: TopScores) -> np.ndarray:
  """Returns truncated logits as uint16 `[..., width]`, with float16 logits.

  Args:
    logits: what `truncated` returned, `[..., num_classes]` on the host.
    top: which scores are kept.
  """
  order = np.argsort(-logits, axis=-1, kind='stable')[..., : top.kept + 1]
  values = np.take_along_axis(logits, order, -1).astype(np.float16)
  values = values.view(np.uint16)
  classes = order[..., : top.kept].astype(np.uint16)
  return np.concatenate([values, classes], -1)


def unpacked(rows: Array, top: TopScores) -> Array:
  """Returns the truncated logits of `packed` in float32.

  Args:
    rows: uint16 `[..., width]`.
    top: which scores are kept.
  """
  count = top.kept
  numbers = jax.lax.bitcast_convert_type(rows[..., : count + 1], jnp.float16)
  values = numbers.astype(jnp.float32)
  shape = (*rows.shape[:-1], top.num_classes)
  rest = jnp.broadcast_to(values[..., count:], shape)
  classes = rows[..., count + 1 :].astype(jnp.int32)
  return jnp.put_along_axis(
    rest, classes, values[..., :count], -1, inplace=False
  )
