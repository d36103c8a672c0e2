"""AutoAugment and RandAugment on the device: random chains of operations.

Cubuk et al., AutoAugment: Learning Augmentation Policies from Data, 2018,
https://arxiv.org/abs/1805.09501; RandAugment: Practical automated data
augmentation with a reduced search space, 2019,
https://arxiv.org/abs/1909.13719

Both take and return uint8 images `[B, H, W, C]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Augment, Batch
from jaxdistill.data.transforms import geometry, operations

LEVELS = 10  # of AutoAugment
MAGNITUDES = 30  # of RandAugment
# The policy that was learned on CIFAR-10: 25 pairs of operations, each as
# (operation, probability in tenths, level).
CIFAR10 = (
  (('invert', 1, 7), ('contrast', 2, 6)),
  (('rotate', 7, 2), ('translate_x', 3, 9)),
  (('sharpness', 8, 1), ('sharpness', 9, 3)),
  (('shear_y', 5, 8), ('translate_y', 7, 9)),
  (('autocontrast', 5, 8), ('equalize', 9, 2)),
  (('shear_y', 2, 7), ('posterize', 3, 7)),
  (('color', 4, 3), ('brightness', 6, 7)),
  (('sharpness', 3, 9), ('brightness', 7, 9)),
  (('equalize', 6, 5), ('equalize', 5, 1)),
  (('contrast', 6, 7), ('sharpness', 6, 5)),
  (('color', 7, 7), ('translate_x', 5, 8)),
  (('equalize', 3, 7), ('autocontrast', 4, 8)),
  (('translate_y', 4, 3), ('sharpness', 2, 6)),
  (('brightness', 9, 6), ('color', 2, 8)),
  (('solarize', 5, 2), ('invert', 0, 3)),
  (('equalize', 2, 0), ('autocontrast', 6, 0)),
  (('equalize', 2, 8), ('equalize', 6, 4)),
  (('color', 9, 9), ('equalize', 6, 6)),
  (('autocontrast', 8, 4), ('solarize', 2, 8)),
  (('brightness', 1, 3), ('color', 7, 0)),
  (('solarize', 4, 5), ('autocontrast', 9, 3)),
  (('translate_y', 9, 9), ('translate_y', 7, 9)),
  (('autocontrast', 9, 2), ('solarize', 8, 3)),
  (('equalize', 8, 8), ('invert', 1, 3)),
  (('translate_y', 7, 9), ('autocontrast', 9, 1)),
)


class Policy(NamedTuple):
  """Chains of operations; each image gets one of them at random.

  Attributes:
    operation: indices into `operations.OPERATIONS`, `[num_chains, length]`.
    probability: with which each operation is applied, of the same shape.
    amount: see `operations.amounts`, of the same shape.
  """

  operation: np.ndarray
  probability: np.ndarray
  amount: np.ndarray


def cifar10_policy(seed: int | None = None) -> Policy:
  """Returns the policy that was learned on CIFAR-10, or a random variant.

  Args:
    seed: None: the learned probabilities and levels. A number: the pairs of
      operations stay, but their probabilities (0, 0.1, ..., 1) and levels (0 to
      9) are drawn at random, as in the ablation of the paper.

  Raises:
    UsageError: the seed is not a whole number of at least 0.
  """
  names, tenths, levels = (
    np.array([[entry[i] for entry in pair] for pair in CIFAR10])
    for i in range(3)
  )
  if seed is not None:
    checks.integer('seed', seed, at_least=0)
    rng = np.random.default_rng(seed)
    tenths = rng.integers(0, 11, tenths.shape)
    levels = rng.integers(0, LEVELS, levels.shape)
  number = np.vectorize(operations.NUMBER.__getitem__)(names)
  strength = operations.amounts(np.linspace(0, 1, LEVELS))
  return Policy(number, tenths / 10, strength[number, levels])


def autoaugment(*, seed: int | None = None, fill: int = 128) -> Augment:
  """AutoAugment: applies one of 25 pairs of operations to each image.

  Args:
    seed: None means the policy that was learned on CIFAR-10. A number means a
      variant with random probabilities and levels, see `cifar10_policy`.
    fill: the grey level of pixels that come from outside the image.

  Raises:
    UsageError: a number is out of its range.
  """
  _check_fill(fill)
  return apply_policy(cifar10_policy(seed), fill=fill)


def randaugment(
  *, count: int = 2, magnitude: int = 9, fill: int = 128
) -> Augment:
  """RandAugment: applies random operations of one strength in a row.

  Each is drawn from all operations except inversion; one of them is the
  identity.

  Args:
    count: the number of operations, N in the paper.
    magnitude: their strength, M in the paper; 30 is the largest strength of
      AutoAugment.
    fill: the grey level of pixels that come from outside the image.

  Raises:
    UsageError: a number is out of its range.
  """
  _check_fill(fill)
  checks.integer('count', count, at_most=100)
  checks.number('magnitude', magnitude, at_least=0, at_most=MAGNITUDES)
  names = [name for name in operations.OPERATIONS if name != 'invert']
  number = np.array([[operations.NUMBER[name]] for name in names])
  strength = operations.amounts(np.array([magnitude / MAGNITUDES]))
  once = apply_policy(
    Policy(number, np.ones(number.shape), strength[number, 0]), fill=fill
  )

  def augment(rng: Array, batch: Batch) -> Batch:
    for key in jax.random.split(rng, count):
      batch = once(key, batch)
    return batch

  return augment


def apply_policy(policy: Policy, *, fill: int = 128) -> Augment:
  """Applies one chain of a policy, drawn at random, to each image.

  Args:
    policy: the chains.
    fill: the grey level of pixels that come from outside the image.
  """
  chains, length = policy.operation.shape
  signed = np.isin(
    policy.operation, [operations.NUMBER[name] for name in operations.SIGNED]
  )

  def augment(rng: Array, batch: Batch) -> Batch:
    geometry.only_images('autoaugment', batch)
    image = batch['image']
    choice_rng, apply_rng, sign_rng = jax.random.split(rng, 3)
    choice = jax.random.randint(choice_rng, (len(image),), 0, chains)
    drawn = jax.random.uniform(apply_rng, (len(image), length))
    minus = jax.random.bernoulli(sign_rng, 0.5, (len(image), length))

    def chosen(table: np.ndarray) -> Array:
      return jnp.asarray(table)[choice]

    operation = jnp.where(
      drawn < chosen(policy.probability), chosen(policy.operation), 0
    )
    sign = jnp.where(chosen(signed) & minus, -1, 1)
    amount = chosen(policy.amount) * sign
    for i in range(length):
      image = operations.operate(image, operation[:, i], amount[:, i], fill)
    return {**batch, 'image': image}

  return augment


def _check_fill(fill: int) -> None:
  checks.integer('fill', fill, at_least=0, at_most=255)
