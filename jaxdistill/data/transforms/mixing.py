"""Cutout, Mixup and CutMix on the device: (rng, batch) -> batch, inside jit.

They come after cropping and flipping and before standardisation, which
`recipes.recipe` puts last. Mixed labels are `[B, num_classes]`. The student and
the teacher see the same mixed images.
"""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Augment, Batch
from jaxdistill.data.transforms import augment as augment_lib
from jaxdistill.data.transforms import geometry

# The parts of `regularized`. Each is an augmentation; the notes tell them
# apart, so that a config may name only the functions that suit an argument.
Policy = Annotated[Augment, 'policy']
Cutout = Annotated[Augment, 'cutout']
Mix = Annotated[Augment, 'mix']


def cutout(*, size: int = 16, mean: Sequence[float]) -> Augment:
  """Covers a square of each image with the mean colour.

  The centre of the square is uniformly distributed over the pixels; parts of
  the square outside the image have no effect. After standardisation the square
  is zero, up to the rounding of the mean.

  Args:
    size: the side of the square in pixels.
    mean: per channel in [0, 255]; in a config, that of the data set.

  Raises:
    UsageError: the size is not a whole number of at least 1.

  References:
    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks
    with Cutout, 2017, https://arxiv.org/abs/1708.04552
  """
  checks.integer('size', size, at_most=augment_lib.LARGEST_SIZE)

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
  """Mixes each image and its label with another image and its label.

    share * x_A + (1 - share) * x_B,    share from Beta(alpha, alpha)

  As in the authors' code, a batch has one share and one permutation. The images
  become float32, still in [0, 255].

  Args:
    num_classes: the length of the mixed labels.
    alpha: the parameter of the beta distribution, above 0.

  Raises:
    UsageError: alpha is not above 0.

  References:
    Zhang et al., mixup: Beyond Empirical Risk Minimization, 2017,
    https://arxiv.org/abs/1710.09412
  """
  checks.integer('num_classes', num_classes)
  checks.number('alpha', alpha, above=0)

  def augment(rng: Array, batch: Batch) -> Batch:
    _check_labels('mixup', batch)
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
  """Pastes a box of another image into each image, and mixes labels by area.

    image = M * x_A + (1 - M) * x_B,    Equation (4) of Orthogonality
    label = share * y_A + (1 - share) * y_B,    Equation (5) of Orthogonality

  M is 0 in a box and 1 elsewhere. The sides of the box are sqrt(1 - share) of
  those of the image, with a share from Beta(alpha, alpha). The centre of the
  box is uniformly distributed over the pixels, and the box ends at the edges of
  the image. The share in Equation (5) is the fraction of pixels where M is 1.
  As in the authors' code, a batch has one box and one permutation.

  Args:
    num_classes: the length of the mixed labels.
    alpha: the parameter of the beta distribution, above 0; 1 in the paper.
    probability: the probability that a batch is mixed at all.

  Raises:
    UsageError: alpha is not above 0, or the probability not in [0, 1].

  References:
    Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features, 2019, https://arxiv.org/abs/1905.04899
  """
  checks.integer('num_classes', num_classes)
  checks.number('alpha', alpha, above=0)
  probability = checks.number('probability', probability, at_least=0, at_most=1)

  def augment(rng: Array, batch: Batch) -> Batch:
    _check_labels('cutmix', batch)
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
  """Applies Mixup or CutMix, chosen at random for each batch, as in DeiT.

  Args:
    num_classes: the length of the mixed labels.
    mixup_alpha: the `alpha` of `mixup`.
    cutmix_alpha: the `alpha` of `cutmix`.
    share: the probability of CutMix.

  Raises:
    UsageError: an alpha is not above 0, or the share not in [0, 1].
  """
  share = checks.number('share', share, at_least=0, at_most=1)
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
  policy: Policy | None = None,
  cutout: Cutout | None = None,
  mix: Mix | None = None,
) -> Augment:
  """Crops and flips, then applies further augmentations in this order.

  Args:
    padding: see `augment.crop_flip`.
    mirror: see `augment.crop_flip`.
    augment: replaces cropping and flipping, for example by `augment.imagenet`.
    policy: AutoAugment or RandAugment; None: neither.
    cutout: Cutout; None: nothing is covered.
    mix: CutMix, Mixup, or an alternation of both; None: nothing is mixed.
  """
  further = [x for x in (policy, cutout, mix) if x is not None]
  first = augment or augment_lib.crop_flip(padding=padding, mirror=mirror)
  return augment_lib.chain(first, *further)


def _check_labels(augment: str, batch: Batch) -> None:
  """Raises UsageError if there is more to mix than the labels of images."""
  geometry.only_images(augment, batch)
  if 'label' not in batch:
    raise UsageError(
      f'augment: {augment!r} mixes the labels of images; expected data with '
      f"'label', got {', '.join(batch)}"
    )


def _share(rng: Array, alpha: float) -> Array:
  """Draws from Beta(alpha, alpha), which is uniform if alpha is 1."""
  if alpha == 1:
    return jax.random.uniform(rng)
  return jax.random.beta(rng, alpha, alpha)


def _box(rng: Array, size: tuple[int, ...], share: Array) -> Array:
  """Returns a mask `[H, W]` that is True in a random box."""
  inside = jnp.ones((), bool)
  for axis, (key, length) in enumerate(zip(jax.random.split(rng), size)):
    half = (length * jnp.sqrt(1 - share)).astype(jnp.int32) // 2
    centre = jax.random.randint(key, (), 0, length)
    place = jnp.arange(length)
    within = (place >= centre - half) & (place < centre + half)
    inside = inside & jnp.expand_dims(within, 1 - axis)
  return inside


def _mixed(batch: Batch, share: Array, other: Array, num_classes: int) -> Array:
  """Mixes labels `[B]` or `[B, num_classes]` to `[B, num_classes]`."""
  label = batch['label']
  if label.ndim == 1:
    label = jax.nn.one_hot(label, num_classes, dtype=jnp.float32)
  return share * label + (1 - share) * label[other]
