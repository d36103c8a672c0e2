"""Cutout, Mixup and CutMix on the device: (rng, batch) -> batch, under jit.

They stand behind cropping and flipping and before standardisation, which
`recipes.recipe` puts last. Mixed labels are `[B, num_classes]`; whatever sees a
mixed image, the teacher too, sees the student's.
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp

from jaxdistill.data import augment as augment_lib
from jaxdistill.types import Array, Augment, Batch, UsageError


def cutout(*, size: int = 16, mean: Sequence[float]) -> Augment:
  """Covers a square of each image with the mean colour.

  Its centre is uniform over the pixels; what lies outside the image is lost.
  After standardisation the square is zero up to the rounding of the mean.

  Args:
    size: side of the square in pixels.
    mean: per channel in [0, 255]; of the data set in a config.

  Raises:
    UsageError: the size is below 1.

  References:
    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks
    with Cutout, 2017, https://arxiv.org/abs/1708.04552
  """
  if size < 1:
    raise UsageError(f'augment.cutout: {size} is below 1')

  def augment(rng: Array, batch: Batch) -> Batch:
    image = batch['image']
    inside = jnp.ones((), bool)
    for axis, key in enumerate(jax.random.split(rng), 1):
      length = image.shape[axis]
      centre = jax.random.randint(key, (len(image), 1), 0, length)
      start = centre - size // 2
      place = jnp.arange(length)[None]
      shape = [len(image), 1, 1, 1]
      shape[axis] = length
      within = (place >= start) & (place < start + size)
      inside = inside & within.reshape(shape)
    color = jnp.round(jnp.asarray(mean)).astype(image.dtype)
    covered = jnp.where(inside, color.reshape(1, 1, 1, -1), image)
    return {**batch, 'image': covered}

  return augment


def mixup(*, num_classes: int, alpha: float = 1.0) -> Augment:
  """Mixes each image and its label with another's.

    share * x_A + (1 - share) * x_B,    share from Beta(alpha, alpha)

  One share and one permutation for a batch, as in the authors' code. The image
  becomes float32, in [0, 255] as before.

  Args:
    num_classes: length of the mixed labels.
    alpha: above 0.

  Raises:
    UsageError: alpha is not above 0.

  References:
    Zhang et al., mixup: Beyond Empirical Risk Minimization, 2017,
    https://arxiv.org/abs/1710.09412
  """
  _check_alpha(alpha)

  def augment(rng: Array, batch: Batch) -> Batch:
    share_rng, order_rng = jax.random.split(rng)
    share = _share(share_rng, alpha)
    other = jax.random.permutation(order_rng, len(batch['image']))
    image = batch['image'].astype(jnp.float32)
    image = share * image + (1 - share) * image[other]
    return {
      **batch,
      'image': image,
      'label': _mixed(batch, share, other, num_classes),
    }

  return augment


def cutmix(
  *, num_classes: int, alpha: float = 1.0, probability: float = 0.5
) -> Augment:
  """Puts a box of another image into each, and mixes the labels by area.

    image = M * x_A + (1 - M) * x_B,    Equation (4) of Orthogonality
    label = share * y_A + (1 - share) * y_B,    Equation (5) of Orthogonality

  M is 0 in a box with the sides sqrt(1 - share) of the image's, whose centre is
  uniform over the pixels and whose edges end at the image's; the share, at
  first from Beta(alpha, alpha), is then that of the pixels where M is 1. One
  box and one permutation for a batch, as in the authors' code.

  Args:
    num_classes: length of the mixed labels.
    alpha: above 0; the paper's is 1.
    probability: that a batch is mixed at all.

  Raises:
    UsageError: alpha is not above 0, or the probability not in [0, 1].

  References:
    Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features, 2019, https://arxiv.org/abs/1905.04899
  """
  _check_alpha(alpha)
  _check_share('probability', probability)

  def augment(rng: Array, batch: Batch) -> Batch:
    share_rng, box_rng, order_rng, whether_rng = jax.random.split(rng, 4)
    image = batch['image']
    share = _share(share_rng, alpha)
    share = jnp.where(
      jax.random.bernoulli(whether_rng, probability), share, 1.0
    )
    box = _box(box_rng, image.shape[1:3], share)
    other = jax.random.permutation(order_rng, len(image))
    pixels = box[None, :, :, None]
    return {
      **batch,
      'image': jnp.where(pixels, image[other], image),
      'label': _mixed(batch, 1 - box.mean(), other, num_classes),
    }

  return augment


def alternate(
  *,
  num_classes: int,
  mixup_alpha: float = 0.8,
  cutmix_alpha: float = 1.0,
  share: float = 0.5,
) -> Augment:
  """Mixup or CutMix, by chance for each batch, as DeiT is trained.

  Args:
    num_classes: length of the mixed labels.
    mixup_alpha: see `mixup`.
    cutmix_alpha: see `cutmix`.
    share: of the batches, that CutMix has.

  Raises:
    UsageError: an alpha is not above 0, or the share not in [0, 1].
  """
  _check_share('share', share)
  whole = mixup(num_classes=num_classes, alpha=mixup_alpha)
  boxes = cutmix(num_classes=num_classes, alpha=cutmix_alpha, probability=1.0)

  def augment(rng: Array, batch: Batch) -> Batch:
    rng, choice_rng = jax.random.split(rng)
    batch = {**batch, 'image': batch['image'].astype(jnp.float32)}
    cut = jax.random.bernoulli(choice_rng, share)
    return jax.lax.cond(cut, boxes, whole, rng, batch)

  return augment


def regularized(
  *,
  padding: int = 4,
  mirror: bool = True,
  augment: Augment | None = None,
  policy: Augment | None = None,
  cutout: Augment | None = None,
  mix: Augment | None = None,
) -> Augment:
  """Crop and flip, then whatever else is given, in this order.

  Args:
    padding: see `augment.crop_flip`.
    mirror: see `augment.crop_flip`.
    augment: stands in place of both, as `augment.imagenet` for its images.
    policy: AutoAugment or RandAugment.
    cutout: covers a part.
    mix: CutMix, Mixup, or each in turn.
  """
  given = [x for x in (policy, cutout, mix) if x is not None]
  first = augment or augment_lib.crop_flip(padding=padding, mirror=mirror)
  return augment_lib.chain(first, *given)


def _share(rng: Array, alpha: float) -> Array:
  """From Beta(alpha, alpha), which for 1 is uniform."""
  if alpha == 1:
    return jax.random.uniform(rng)
  return jax.random.beta(rng, alpha, alpha)


def _box(rng: Array, size: tuple[int, ...], share: Array) -> Array:
  """True in the box, `[H, W]`."""
  inside = jnp.ones((), bool)
  for axis, (key, length) in enumerate(zip(jax.random.split(rng), size)):
    half = (length * jnp.sqrt(1 - share)).astype(jnp.int32) // 2
    centre = jax.random.randint(key, (), 0, length)
    place = jnp.arange(length)
    within = (place >= centre - half) & (place < centre + half)
    inside = inside & jnp.expand_dims(within, 1 - axis)
  return inside


def _mixed(batch: Batch, share: Array, other: Array, num_classes: int) -> Array:
  """Labels `[B]` or `[B, num_classes]` as mixed ones."""
  label = batch['label']
  if label.ndim == 1:
    label = jax.nn.one_hot(label, num_classes, dtype=jnp.float32)
  return share * label + (1 - share) * label[other]


def _check_alpha(alpha: float) -> None:
  if not 0 < alpha < math.inf:
    raise UsageError(f'augment.mix.alpha: {alpha} is no number above 0')


def _check_share(name: str, share: float) -> None:
  if not 0 <= share <= 1:
    raise UsageError(f'augment.mix.{name}: {share} is not in [0, 1]')
