"""How diverse a network's outputs are, and means with confidence intervals.

The score is that of Mellor et al., Neural Architecture Search without Training,
version 1, 2020, https://arxiv.org/abs/2006.04647v1, as used in Table 6 of Park
et al., On the Orthogonality of Knowledge Distillation with Other Techniques,
2020, https://arxiv.org/abs/2009.04120.
"""

from collections.abc import Mapping, Sequence
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Augment, Model, Network, Variables
from jaxdistill.networks import graph

# The 99.5 % quantile of the normal distribution, for intervals of 99 %.
QUANTILE = 2.576


class Interval(NamedTuple):
  """A mean over independently trained networks, with its uncertainty.

  Attributes:
    mean: the mean of the scores.
    sd: the standard deviation of the sample.
    margin: the standard error, sd / sqrt(number of scores).
    half_width: half the width of the 99 % interval, 2.576 standard errors.
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
  """Scores how little the gradients of a network's outputs resemble each other.

  The score of the correlation matrix of J_1 ... J_N, the gradients of the sum
  of all logits with respect to each image, is::

    - sum over eigenvalues v of [log(v + k) + 1 / (v + k)],   k = 1e-5

  It is at most -N, its value if no gradients are correlated. Therefore, only
  scores of the same `size` can be compared.

  Args:
    model: the model.
    split: {'image': uint8 `[M, H, W, C]`, ...}. The paper uses training images
      without augmentation.
    preprocess: the preprocessing for evaluation (standardisation).
    size: the number N of images; the seed chooses them. It must be smaller than
      the number of values in an image, H x W x C: more gradients are always
      linearly dependent, whatever the network is, and each dependent one lowers
      the score by 1 / k.
    seed: the seed of this choice.
    train: whether batch norms use the statistics of the batch. They do in the
      code of version 1; the paper does not say.

  Raises:
    UsageError: `size` is below 2, above the number of images, or not smaller
      than the number of values in an image.
  """
  count = len(split['image'])
  size = checks.integer('size', size, at_least=2)
  if size > count:
    raise UsageError(
      f'size: expected at most {count}, the number of images, got {size}'
    )
  values = math.prod(split['image'].shape[1:])
  if size >= values:
    raise UsageError(
      f'size: expected less than {values}, the number of values in an image, '
      f'got {size}'
    )
  chosen = np.sort(np.random.default_rng(seed).permutation(count)[:size])
  raw = {'image': jnp.asarray(split['image'][chosen])}
  image = preprocess(jax.random.key(0), raw)['image']
  gradients = _gradients(model.network, model.variables, image, train)
  return correlation_score(np.asarray(gradients).reshape(size, -1))


def correlation_score(rows: np.ndarray) -> float:
  """Returns the score of `output_diversity` for given gradients.

  Args:
    rows: one gradient per image, `[N, D]`.

  Raises:
    ValueError: all entries of a gradient are equal, so that it has no
      correlation with the others.
  """
  rows = np.asarray(rows, np.float64)
  if not (rows.std(1) > 0).all():
    raise ValueError(
      'expected gradients with different entries, got a constant one: the '
      'network does not respond to an image'
    )
  values = np.linalg.eigvalsh(np.corrcoef(rows)) + 1e-5
  return float(-(np.log(values) + 1 / values).sum())


def interval(scores: Sequence[float]) -> Interval:
  """Returns the mean of scores with its standard error and 99 % interval.

  The interval uses the quantile of the normal distribution, as the paper's
  numbers show. Student's distribution, which suits few scores better, would
  make it 1.8 times as wide for five scores.

  Args:
    scores: at least two scores.

  Raises:
    UsageError: there are fewer than two.
  """
  if len(scores) < 2:
    raise UsageError(f'scores: expected at least two, got {len(scores)}')
  sd = float(np.std(scores, ddof=1))
  margin = sd / math.sqrt(len(scores))
  return Interval(float(np.mean(scores)), sd, margin, QUANTILE * margin)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _gradients(
  network: Network, variables: Variables, image: Array, train: bool
) -> Array:
  """Returns the gradient of the sum of all logits, `[N, H, W, C]`."""

  def total(image: Array) -> Array:
    features, _ = graph.run(
      network,
      variables,
      {'image': image},
      train=train,
      rngs={'dropout': jax.random.key(0)},
    )
    return features[graph.main_output(network)].astype(jnp.float32).sum()

  return jax.grad(total)(image)
