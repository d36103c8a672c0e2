"""Augmentation on the device: functions (rng, batch) -> batch, under jit.

Images come as uint8 `[B, H, W, C]` and leave as float32.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxdistill.types import Array, Augment, Batch, UsageError


def chain(*functions: Augment) -> Augment:
  """Applies functions in order, each with its own key."""

  def augment(rng: Array, batch: Batch) -> Batch:
    for i, function in enumerate(functions):
      batch = function(jax.random.fold_in(rng, i), batch)
    return batch

  return augment


def standardize(mean: Sequence[float], std: Sequence[float]) -> Augment:
  """(image - mean) / std per channel; both in [0, 255]."""

  def augment(rng: Array, batch: Batch) -> Batch:
    del rng
    image = batch['image'].astype(jnp.float32)
    shift = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)
    scale = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, -1)
    return {**batch, 'image': (image - shift) / scale}

  return augment


def pad_crop(padding: int = 4) -> Augment:
  """Pads with zeros and crops at random to the size before."""

  def augment(rng: Array, batch: Batch) -> Batch:
    image = batch['image']
    pad = (padding, padding)
    padded = jnp.pad(image, ((0, 0), pad, pad, (0, 0)))
    corner = jax.random.randint(rng, (len(image), 2), 0, 2 * padding + 1)

    def crop(image: Array, corner: Array, shape: tuple[int, ...]) -> Array:
      start = (corner[0], corner[1], 0)
      return jax.lax.dynamic_slice(image, start, shape)

    cropped = jax.vmap(lambda x, c: crop(x, c, image.shape[1:]))(padded, corner)
    return {**batch, 'image': cropped}

  return augment


def flip() -> Augment:
  """Mirrors left and right with probability one half."""

  def augment(rng: Array, batch: Batch) -> Batch:
    image = batch['image']
    mirrored = jax.random.bernoulli(rng, 0.5, (len(image), 1, 1, 1))
    return {**batch, 'image': jnp.where(mirrored, image[:, :, ::-1], image)}

  return augment


def crop_flip(*, padding: int = 4, mirror: bool = True) -> Augment:
  """The standard augmentation of CIFAR: pad and crop, then flip.

  Args:
    padding: pixels on each side; 0: no cropping.
    mirror: whether to flip left and right.
  """
  if padding < 0:
    raise UsageError(f'augment.padding: {padding} is below 0')
  functions = [pad_crop(padding)] if padding else []
  return chain(*functions, *([flip()] if mirror else []))


def none() -> Augment:
  """No augmentation."""
  return chain()
