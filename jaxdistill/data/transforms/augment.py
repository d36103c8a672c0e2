"""Augmentation on the device: functions (rng, batch) -> batch, inside jit.

Images are uint8 `[B, H, W, C]`. `standardize`, which comes last, converts them
to float32. What moves images also moves the masks, depths and boxes of the
batch; see `geometry`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Augment, Batch
from jaxdistill.data.transforms import geometry

# The largest height and width of an image, in pixels.
LARGEST_SIZE = 8192


def chain(*functions: Augment) -> Augment:
  """Applies augmentations in order, each with its own random key.

  Args:
    *functions: the augmentations; none leave the batch unchanged.
  """

  def augment(rng: Array, batch: Batch) -> Batch:
    for i, function in enumerate(functions):
      batch = function(jax.random.fold_in(rng, i), batch)
    return batch

  return augment


def standardize(mean: Sequence[float], std: Sequence[float]) -> Augment:
  """Computes (image - mean) / std per channel, in float32.

  Args:
    mean: per channel in [0, 255].
    std: the standard deviation, likewise.
  """

  def augment(rng: Array, batch: Batch) -> Batch:
    del rng
    image = batch['image'].astype(jnp.float32)
    shift = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)
    scale = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, -1)
    return {**batch, 'image': (image - shift) / scale}

  return augment


def repeated(augment: Augment, *, count: int = 3) -> Augment:
  """Repeated augmentation: puts several versions of an image into a batch.

  The first images of the batch are taken, each `count` times in a row, and each
  copy is augmented independently. The other images of the batch are not used,
  because an epoch keeps its number of steps.

  Args:
    augment: the augmentation of each copy.
    count: the number of copies; DeiT uses 3.

  Raises:
    UsageError: the count is not a whole number from 1 to 100.

  References:
    Hoffer et al., Augment Your Batch: Improving Generalization Through Instance
    Repetition, 2020, https://arxiv.org/abs/1901.09335
    Touvron et al., Training data-efficient image transformers & distillation
    through attention, 2021, https://arxiv.org/abs/2012.12877
  """
  count = checks.integer('count', count, at_most=100)

  def repeat(rng: Array, batch: Batch) -> Batch:
    rows = np.arange(len(batch['image'])) // count
    return augment(rng, {name: x[rows] for name, x in batch.items()})

  return repeat


def pad_crop(padding: int = 4) -> Augment:
  """Pads images with zeros and crops them at random to their former size.

  Args:
    padding: the number of pixels on each side, at most the size of the images.
  """

  def augment(rng: Array, batch: Batch) -> Batch:
    image = batch['image']
    checks.integer('padding', padding, at_most=min(image.shape[1:3]))
    pad = (padding, padding)
    padded = jnp.pad(image, ((0, 0), pad, pad, (0, 0)))
    corner = jax.random.randint(rng, (len(image), 2), 0, 2 * padding + 1)

    def crop(image: Array, corner: Array, shape: tuple[int, ...]) -> Array:
      start = (corner[0], corner[1], 0)
      return jax.lax.dynamic_slice(image, start, shape)

    cropped = jax.vmap(lambda x, c: crop(x, c, image.shape[1:]))(padded, corner)
    moved = geometry.move_targets(_cut(image, corner - padding), batch)
    return {**moved, 'image': cropped}

  return augment


def flip() -> Augment:
  """Mirrors each image horizontally with probability one half."""

  def augment(rng: Array, batch: Batch) -> Batch:
    image = batch['image']
    mirrored = jax.random.bernoulli(rng, 0.5, (len(image), 1, 1, 1))
    whole = _cut(image, jnp.zeros((len(image), 2), int))
    moved = geometry.move_targets(
      whole._replace(mirrored=mirrored.reshape(-1)), batch
    )
    return {**moved, 'image': jnp.where(mirrored, image[:, :, ::-1], image)}

  return augment


def crop_flip(*, padding: int = 4, mirror: bool = True) -> Augment:
  """The standard augmentation of CIFAR: pad and crop, then flip.

  Args:
    padding: the number of pixels on each side, at most the size of the images;
      0: images are not cropped.
    mirror: whether to mirror images horizontally.

  Raises:
    UsageError: the padding is not a whole number of at least 0, or larger than
      the images.
  """
  padding = checks.integer('padding', padding, at_least=0)
  functions = [pad_crop(padding)] if padding else []
  return chain(*functions, *([flip()] if mirror else []))


def random_resized_crop(
  size: int,
  *,
  scale: Sequence[float] = (0.08, 1.0),
  ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> Augment:
  """Cuts a random rectangle out of each image and resizes it to a square.

  The image is resampled once, bilinear and antialiased. Near the edge of the
  rectangle, pixels outside of it contribute as well.

  Args:
    size: the height and width of the result in pixels.
    scale: the smallest and largest area, as fractions of the image's area.
    ratio: the smallest and largest ratio of width to height; its logarithm is
      uniformly distributed.

  References:
    Szegedy et al., Going Deeper with Convolutions, 2014,
    https://arxiv.org/abs/1409.4842
  """

  def augment(rng: Array, batch: Batch) -> Batch:
    image = batch['image']
    corner, part = _random_boxes(rng, image.shape, scale, ratio)
    mirrored = jnp.zeros(len(image), bool)
    seen = geometry.Geometry(corner, part, mirrored, (size, size))
    return geometry.move(seen, batch)

  return augment


def color_jitter(
  *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
) -> Augment:
  """Changes brightness, contrast and saturation of each image at random.

    image = f * image + (1 - f) * other,    f uniform in [1 - x, 1 + x]

  The other image is black for the brightness, the mean grey level for the
  contrast, and the grey version of the image for the saturation. They are
  applied in this order, each with one factor per image. The saturation of grey
  images does not change.

  Args:
    brightness: `x` for the brightness.
    contrast: `x` for the contrast.
    saturation: `x` for the saturation.
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
    return {**batch, 'image': geometry.as_dtype(pixels, batch['image'].dtype)}

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
  """The standard augmentation of ImageNet: random rectangles, then flips.

  Evaluation uses the central part of each image, see `center`.

  Args:
    size: the height and width in pixels of the images that networks see.
    scale: see `random_resized_crop`.
    ratio: see `random_resized_crop`.
    mirror: whether to mirror images horizontally.
    brightness: see `color_jitter`; 0.4 is usual.
    contrast: see `color_jitter`.
    saturation: see `color_jitter`.

  Raises:
    UsageError: a value is out of its range.
  """
  checks.integer('size', size, at_most=LARGEST_SIZE)
  check_range('scale', scale, 1.0)
  check_range('ratio', ratio, np.inf)
  return chain(
    random_resized_crop(size, scale=scale, ratio=ratio),
    *([flip()] if mirror else []),
    *jitter(brightness, contrast, saturation),
  )


def center(height: int, width: int) -> Augment:
  """Resizes the central part of each image to a size, for evaluation.

  If the image is larger than the result, the central 7/8 of it are used, or a
  part of the size of the result if that is more: the central 224 of 256 pixels,
  for example. If the image is smaller, as much of it as possible is used. An
  image of the right size is not changed.

  Args:
    height: of the result, in pixels.
    width: likewise.
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
      middle = image[:, top : top + height, left : left + width]
      corner = jnp.broadcast_to(jnp.array((top, left)), (image.shape[0], 2))
      moved = geometry.move_targets(_cut(middle, corner), batch)
      return {**moved, 'image': middle}
    # The batch size of a program for another runtime is a symbol.
    corner, parts = (
      jnp.broadcast_to(jnp.array([x]), (image.shape[0], 2))
      for x in ((whole - part) / 2, part)
    )
    mirrored = jnp.zeros(image.shape[0], bool)
    seen = geometry.Geometry(corner, parts, mirrored, size)
    return geometry.move(seen, batch)

  return augment


def none() -> Augment:
  """Leaves batches unchanged."""
  return chain()


def check_range(name: str, pair: Sequence[float], largest: float) -> None:
  """Checks the ends of a range of positive numbers.

  Args:
    name: the name of the argument, for the message.
    pair: (smallest, largest).
    largest: the largest valid number.

  Raises:
    UsageError: they are not in order, or out of range.
  """
  if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= largest:
    bound = f' and at most {largest:g}' if largest < np.inf else ''
    raise UsageError(
      f'{name}: expected (smallest, largest) above 0{bound}, got {list(pair)}'
    )


def jitter(
  brightness: float, contrast: float, saturation: float
) -> list[Augment]:
  """Returns the changes of colour as a list, which is empty without any.

  Args:
    brightness: see `color_jitter`.
    contrast: see `color_jitter`.
    saturation: see `color_jitter`.

  Raises:
    UsageError: a number is negative.
  """
  strengths = {
    'brightness': brightness,
    'contrast': contrast,
    'saturation': saturation,
  }
  for name, strength in strengths.items():
    checks.number(name, strength, at_least=0)
  return [color_jitter(**strengths)] if any(strengths.values()) else []


def _cut(image: Array, corner: Array) -> geometry.Geometry:
  """Returns the parts of the size of images that begin at some corners.

  Args:
    image: images of the size of the parts, `[B, H, W, C]`.
    corner: `[B, 2]`.
  """
  height, width = image.shape[1:3]
  size = (height, width)
  part = jnp.broadcast_to(jnp.array(size, jnp.float32), corner.shape)
  return geometry.Geometry(corner, part, jnp.zeros(image.shape[0], bool), size)


def _random_boxes(
  rng: Array,
  shape: tuple[int, ...],
  scale: Sequence[float],
  ratio: Sequence[float],
) -> tuple[Array, Array]:
  """Returns (corners, sizes), both `[B, 2]` as (vertical, horizontal)."""
  area_rng, ratio_rng, corner_rng = jax.random.split(rng, 3)
  whole = jnp.array([[shape[1:3]]], jnp.float32)
  tries = (shape[0], 10, 1)
  area = jax.random.uniform(area_rng, tries, jnp.float32, *scale) * whole.prod()
  low, high = np.log(ratio)
  aspect = jnp.exp(jax.random.uniform(ratio_rng, tries, jnp.float32, low, high))
  part = jnp.sqrt(jnp.concatenate([area / aspect, area * aspect], -1))
  # The first rectangle that fits. If none of the 10 fits, the first of them is
  # made smaller.
  first = jnp.argmax((part <= whole).all(-1), axis=1)
  part = jnp.take_along_axis(part, first[:, None, None], axis=1)[:, 0]
  part = jnp.minimum(part, whole[0])
  free = jax.random.uniform(corner_rng, part.shape) * (whole[0] - part)
  return free, part


def _grey(pixels: Array) -> Array:
  """Returns the luminance `[B, H, W, 1]` by ITU-R 601.

  For images that are not RGB, it is the mean of the channels.
  """
  if pixels.shape[-1] != 3:
    return pixels.mean(-1, keepdims=True)
  weights = jnp.array([0.299, 0.587, 0.114], jnp.float32)
  return (pixels * weights.reshape(1, 1, 1, 3)).sum(-1, keepdims=True)
