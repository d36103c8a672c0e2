"""Views: augmented images that are the same whenever they are made.

A view of an image depends only on the index of the image and on the number of
the view. What a network says about the views can therefore be computed once and
stored.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import random
from jaxdistill.core.types import TEACHER_OUTPUTS, Array, Augment, Batch
from jaxdistill.data.transforms import top_scores
from jaxdistill.data.transforms.top_scores import TopScores

# The column of a batch that holds the numbers of the views.
VIEW = 'view'
# How often, and with how many images, `mixes` tries an augmentation.
_TRIALS, _IMAGES = 32, 4


def fixed(augment: Augment) -> Augment:
  """Returns an augmentation that makes the views of the column `VIEW`.

  Each image is augmented by itself, as a batch of one, with a key of its own.

  Args:
    augment: the augmentation, which must not mix images.
  """

  def of_example(example: Batch) -> Batch:
    example = dict(example)
    rng = random.view_key(example['index'], example.pop(VIEW))
    batch = augment(rng, {name: x[None] for name, x in example.items()})
    return {name: x[0] for name, x in batch.items()}

  def augmented(rng: Array, batch: Batch) -> Batch:
    del rng
    return jax.vmap(of_example)(batch)

  return augmented


def drawn(
  augment: Augment, count: int, top: TopScores | None = None
) -> Augment:
  """Returns an augmentation that draws one of the views of each image.

  The batch has the column `TEACHER_OUTPUTS`, `[B, count, ...]`. Only the
  outputs of the drawn views are kept, `[B, ...]` in float32.

  Args:
    augment: the augmentation, which must not mix images.
    count: the number of views.
    top: which scores the column holds, see `top_scores`; None: all of them.
  """
  make = fixed(augment)

  def augmented(rng: Array, batch: Batch) -> Batch:
    batch = dict(batch)
    outputs = batch.pop(TEACHER_OUTPUTS)
    view = jax.random.randint(rng, (len(outputs),), 0, count)
    chosen = outputs[jnp.arange(len(outputs)), view]
    if top is None:
      chosen = chosen.astype(jnp.float32)
    else:
      chosen = top_scores.unpacked(chosen, top)
    return {**make(rng, {**batch, VIEW: view}), TEACHER_OUTPUTS: chosen}

  return augmented


def is_random(augment: Augment, split: Mapping[str, Any]) -> bool:
  """Returns whether an augmentation depends on its random key.

  It is applied to a few images with several keys. An augmentation that changes
  images very rarely is not noticed.

  Args:
    augment: the augmentation.
    split: the columns `[N, ...]` of examples.
  """
  rows = np.arange(min(_IMAGES, len(split['image'])))
  batch = {name: column[rows] for name, column in split.items()}
  keys = jax.random.split(jax.random.key(0), _TRIALS)
  tried = jax.jit(jax.vmap(augment, (0, None)))(keys, batch)
  return any(
    not np.array_equal(x, np.broadcast_to(x[:1], x.shape))
    for x in tried.values()
  )


def mixes(augment: Augment, split: Mapping[str, Any]) -> bool:
  """Returns whether an augmentation uses one image for the result of another.

  The augmentation is applied to a few images twice. The second time, one of
  them is changed, which must not change the results of the others. An
  augmentation that mixes images very rarely is not noticed.

  Args:
    augment: the augmentation.
    split: the columns `[N, ...]` of examples.
  """
  rows = np.arange(min(_IMAGES, len(split['image'])))
  batch = {name: column[rows] for name, column in split.items()}
  changed = np.array(batch['image'])
  changed[0] = 255 - changed[0]
  keys = jax.random.split(jax.random.key(0), _TRIALS)
  tried = jax.jit(jax.vmap(augment, (0, None)))
  before, after = tried(keys, batch), tried(keys, {**batch, 'image': changed})
  return any(
    not np.array_equal(x[:, 1:], after[name][:, 1:])
    for name, x in before.items()
  )
