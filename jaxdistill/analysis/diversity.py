"""How diverse a network's outputs are, and means with their intervals.

Mellor et al., Neural Architecture Search without Training, version 1, 2020,
https://arxiv.org/abs/2006.04647v1, as Table 6 of Park et al., On the
Orthogonality of Knowledge Distillation with Other Techniques, 2020,
https://arxiv.org/abs/2009.04120, uses it.
"""

from collections.abc import Mapping, Sequence
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.networks import arguments, staged
from jaxdistill.types import (
  Array,
  Augment,
  Model,
  Network,
  UsageError,
  Variables,
)

QUANTILE = 2.576  # of the normal distribution, for 99 %


class Interval(NamedTuple):
  """A mean over independently trained networks.

  Attributes:
    mean: of the scores.
    sd: the standard deviation of a sample.
    margin: sd / sqrt(number of scores).
    half_width: of the 99 % interval, 2.576 margins.
  """

  mean: float
  sd: float
  margin: float
  half_width: float


def output_diversity(
  model: Model,
  split: Mapping[str, Any],
  preprocess: Augment,
  *,
  size: int = 128,
  seed: int = 0,
  train: bool = True,
) -> float:
  """How little the gradients of a network's answers resemble each other.

    - sum over eigenvalues v of [log(v + k) + 1 / (v + k)],    k = 1e-5

  of the correlations of J_1 ... J_N, the gradients of the sum of all logits
  with respect to each image. The score is at most -N, where none correlate, so
  only scores of the same `size` compare.

  Args:
    model: the model.
    split: {'image': uint8 `[M, H, W, C]`, ...}; the paper's training images,
      not augmented.
    preprocess: what stands in for augmentation (standardisation).
    size: how many images, N; chosen by the seed.
    seed: of the choice.
    train: whether batch norms use the batch's own statistics, as the code of
      version 1 ended up doing; the paper does not say.

  Raises:
    UsageError: there are not as many images, or fewer than two.
  """
  count = len(split['image'])
  size = arguments.whole('size', size)
  if not 2 <= size <= count:
    raise UsageError(f'size: {size}; wanted 2 to {count}, of the images there')
  chosen = np.sort(np.random.default_rng(seed).permutation(count)[:size])
  raw = {'image': jnp.asarray(split['image'][chosen])}
  image = preprocess(jax.random.key(0), raw)['image']
  slopes = _slopes(model.network, model.variables, image, train)
  return correlation_score(np.asarray(slopes).reshape(size, -1))


def correlation_score(rows: np.ndarray) -> float:
  """The score of `output_diversity` of gradients `[N, D]`.

  Raises:
    ValueError: a gradient is the same everywhere, so correlates with nothing.
  """
  rows = np.asarray(rows, np.float64)
  if not (rows.std(1) > 0).all():
    raise ValueError('the gradient of an image is constant: a dead network')
  values = np.linalg.eigvalsh(np.corrcoef(rows)) + 1e-5
  return float(-(np.log(values) + 1 / values).sum())


def interval(scores: Sequence[float]) -> Interval:
  """Mean, deviation, margin and 99 % interval of at least two scores.

  The normal quantile, as the paper's numbers show; Student's, which few scores
  want, is 1.8 times as wide for five.

  Raises:
    UsageError: there are fewer than two.
  """
  if len(scores) < 2:
    raise UsageError(f'an interval needs two scores, got {len(scores)}')
  sd = float(np.std(scores, ddof=1))
  margin = sd / math.sqrt(len(scores))
  return Interval(float(np.mean(scores)), sd, margin, QUANTILE * margin)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _slopes(
  network: Network, variables: Variables, image: Array, train: bool
) -> Array:
  """Gradient of the sum of all logits, `[N, H, W, C]`."""

  def total(image: Array) -> Array:
    features, _ = staged.run(
      network,
      variables,
      {'image': image},
      train=train,
      rngs={'dropout': jax.random.key(0)},
    )
    return features[staged.output(network)].astype(jnp.float32).sum()

  return jax.grad(total)(image)
