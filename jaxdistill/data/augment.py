"""Augmentation on the device: functions (rng, batch) -> batch, under jit.

Images are uint8 `[B, H, W, C]`; `standardize`, the last, makes them float32.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

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


def repeated(augment: Augment, *, count: int = 3) -> Augment:
  """Repeated augmentation: an image stands in a batch several times.

  Of the batch the first images are taken, each `count` times in a row and each
  time augmented anew; the rest waits for another epoch, as an epoch keeps its
  steps.

  Args:
    augment: what each copy goes through.
    count: how often; DeiT's is 3.

  Raises:
    UsageError: the count is no whole number above 0.

  References:
    Hoffer et al., Augment Your Batch: Improving Generalization Through Instance
    Repetition, 2020, https://arxiv.org/abs/1901.09335
    Touvron et al., Training data-efficient image transformers & distillation
    through attention, 2021, https://arxiv.org/abs/2012.12877
  """
  if isinstance(count, bool) or not isinstance(count, int) or count < 1:
    raise UsageError(f'augment.count: {count!r} is no whole number above 0')

  def repeat(rng: Array, batch: Batch) -> Batch:
    rows = np.arange(len(batch['image'])) // count
    return augment(rng, {name: x[rows] for name, x in batch.items()})

  return repeat


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


def random_resized_crop(
  size: int,
  *,
  scale: Sequence[float] = (0.08, 1.0),
  ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> Augment:
  """Cuts out a random part of the image and resizes it to a square.

  One resampling, bilinear and antialiased; near the edge of the part it sees
  the pixels beside it.

  Args:
    size: of the result, in pixels.
    scale: least and greatest share of the image's area.
    ratio: least and greatest width over height; its logarithm is uniform.

  References:
    Szegedy et al., Going Deeper with Convolutions, 2014,
    https://arxiv.org/abs/1409.4842
  """

  def augment(rng: Array, batch: Batch) -> Batch:
    image = batch['image']
    corner, part = _random_boxes(rng, image.shape, scale, ratio)
    return {**batch, 'image': _resample(image, corner, part, (size, size))}

  return augment


def color_jitter(
  *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
) -> Augment:
  """Blends each image with black, with its mean grey, and with itself in grey.

    image = f * image + (1 - f) * other,    f uniform in [1 - x, 1 + x]

  in this order, with one factor per image; grey images have no saturation.

  Args:
    brightness: `x` of the first.
    contrast: `x` of the second.
    saturation: `x` of the third.
  """

  def augment(rng: Array, batch: Batch) -> Batch:
    pixels = batch['image'].astype(jnp.float32)

    def blend(i: int, strength: float, pixels: Array, other: Array) -> Array:
      low, high = max(0.0, 1 - strength), 1 + strength
      shape = (len(pixels), 1, 1, 1)
      key = jax.random.fold_in(rng, i)
      factor = jax.random.uniform(key, shape, minval=low, maxval=high)
      return jnp.clip(factor * pixels + (1 - factor) * other, 0, 255)

    if brightness:
      pixels = blend(0, brightness, pixels, jnp.zeros_like(pixels))
    if contrast:
      mean = _grey(pixels).mean((1, 2, 3), keepdims=True)
      pixels = blend(1, contrast, pixels, mean)
    if saturation:
      pixels = blend(2, saturation, pixels, _grey(pixels))
    return {**batch, 'image': _as(pixels, batch['image'].dtype)}

  return augment


def imagenet(
  *,
  size: int = 224,
  scale: Sequence[float] = (0.08, 1.0),
  ratio: Sequence[float] = (3 / 4, 4 / 3),
  mirror: bool = True,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
) -> Augment:
  """The standard augmentation of ImageNet; evaluation sees the centre.

  Args:
    size: of the images that networks see, in pixels.
    scale: see `random_resized_crop`.
    ratio: see `random_resized_crop`.
    mirror: whether to flip left and right.
    brightness: see `color_jitter`; 0.4 is usual.
    contrast: the same.
    saturation: the same.
  """
  if size <= 0:
    raise UsageError(f'augment.size: {size} is not above 0')
  for name, pair, most in (('scale', scale, 1.0), ('ratio', ratio, np.inf)):
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
      raise UsageError(
        f'augment.{name}: {list(pair)} is no (least, greatest) above 0'
        + (' and up to 1' if most == 1 else '')
      )
  jitter = {
    'brightness': brightness,
    'contrast': contrast,
    'saturation': saturation,
  }
  for name, strength in jitter.items():
    if strength < 0:
      raise UsageError(f'augment.{name}: {strength} is below 0')
  return chain(
    random_resized_crop(size, scale=scale, ratio=ratio),
    *([flip()] if mirror else []),
    *([color_jitter(**jitter)] if any(jitter.values()) else []),
  )


def center(height: int, width: int) -> Augment:
  """The middle of the image in another size, for evaluation.

  Where the image is larger, the middle 7/8 of it are resized, or what has the
  size already if that is more: of 256 pixels the middle 224. Where it is
  smaller, all of it is. An image of that size stays as it is.

  Args:
    height: of the result, in pixels.
    width: the same.
  """
  size = (height, width)

  def augment(rng: Array, batch: Batch) -> Batch:
    del rng
    image = batch['image']
    whole = np.array(image.shape[1:3])
    fit = np.min(whole / size)
    part = min(fit, max(1.0, 7 / 8 * fit)) * np.array(size)
    if (part == size).all():
      top, left = (whole - size) // 2
      cut = image[:, top : top + height, left : left + width]
      return {**batch, 'image': cut}
    box = [jnp.array([x] * len(image)) for x in ((whole - part) / 2, part)]
    return {**batch, 'image': _resample(image, box[0], box[1], size)}

  return augment


def none() -> Augment:
  """No augmentation."""
  return chain()


def _random_boxes(
  rng: Array,
  shape: tuple[int, ...],
  scale: Sequence[float],
  ratio: Sequence[float],
) -> tuple[Array, Array]:
  """Top left corners and sizes `[B, 2]`, (vertical, horizontal)."""
  area_rng, ratio_rng, corner_rng = jax.random.split(rng, 3)
  whole = jnp.array([[shape[1:3]]], jnp.float32)
  tries = (shape[0], 10, 1)
  area = jax.random.uniform(area_rng, tries, jnp.float32, *scale) * whole.prod()
  low, high = np.log(ratio)
  aspect = jnp.exp(jax.random.uniform(ratio_rng, tries, jnp.float32, low, high))
  part = jnp.sqrt(jnp.concatenate([area / aspect, area * aspect], -1))
  # The first that fits; if none does, the first one's part inside the image.
  first = jnp.argmax((part <= whole).all(-1), axis=1)
  part = jnp.take_along_axis(part, first[:, None, None], axis=1)[:, 0]
  part = jnp.minimum(part, whole[0])
  free = jax.random.uniform(corner_rng, part.shape) * (whole[0] - part)
  return free, part


def _resample(
  image: Array, corner: Array, part: Array, size: tuple[int, int]
) -> Array:
  """Resizes a part of each image, `[B, *size, C]`; bilinear, antialiased."""

  def one(image: Array, corner: Array, part: Array) -> Array:
    scale = jnp.array(size, jnp.float32) / part
    return jax.image.scale_and_translate(
      image.astype(jnp.float32),
      (*size, image.shape[-1]),
      (0, 1),
      scale,
      -corner * scale,
      'linear',
      antialias=True,
    )

  return _as(jax.vmap(one)(image, corner, part), image.dtype)


def _grey(pixels: Array) -> Array:
  """Luminance by ITU-R 601, or the mean of other channels; `[B, H, W, 1]`."""
  if pixels.shape[-1] != 3:
    return pixels.mean(-1, keepdims=True)
  weights = jnp.array([0.299, 0.587, 0.114], jnp.float32)
  return (pixels * weights.reshape(1, 1, 1, 3)).sum(-1, keepdims=True)


def _as(pixels: Array, dtype: np.dtype) -> Array:
  """Rounded where the images were integers."""
  if jnp.issubdtype(dtype, jnp.integer):
    pixels = jnp.clip(jnp.round(pixels), 0, 255)
  return pixels.astype(dtype)
