"""Losses on maps of classes and features, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import IGNORE

B, H, W, K, C = 3, 4, 6, 5, 7
RNG = np.random.default_rng(0)


def maps(channels, size=(H, W)):
  return 2 * RNG.normal(size=(B, *size, channels)).astype(np.float32)


MASK = RNG.integers(0, K, (B, H, W)).astype(np.uint8)
MASK[0, :2] = IGNORE
MASK[2] = IGNORE


def softmax(x, axis):
  weights = np.exp(x - x.max(axis, keepdims=True))
  return weights / weights.sum(axis, keepdims=True)


def divergence(student, teacher, temperature, axis):
  """T**2 KL(teacher || student) of softened probabilities, by its formula."""
  p = softmax(np.float64(teacher) / temperature, axis)
  q = softmax(np.float64(student) / temperature, axis)
  return temperature**2 * (p * np.log(p / q)).sum(axis)


def cosine(x, y):
  return (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_pixel_wise_kd_is_the_mean_over_pixels_with_a_class(temperature):
  student, teacher = maps(K), maps(K)
  loss = losses.pixel_soft_target_loss(
    student, teacher, MASK, temperature=temperature
  )
  pixels = divergence(student, teacher, temperature, -1)
  for i in range(2):
    expected = pixels[i][MASK[i] != IGNORE].mean()
    assert float(loss[i]) == pytest.approx(expected, rel=1e-5)
  assert loss[2] == 0


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_channel_wise_loss_compares_where_channels_are_high(temperature):
  student, teacher = maps(C), maps(C)
  loss = losses.channel_wise_loss(student, teacher, temperature=temperature)
  # The authors sum over images, channels and places and divide by B * C.
  flat = (x.reshape(B, H * W, C) for x in (student, teacher))
  expected = divergence(*flat, temperature, axis=1).mean(-1)
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_the_difference_of_maps_is_a_mean_over_an_image():
  student, teacher = maps(1), maps(1)
  loss = losses.map_absolute_error(student, teacher)
  expected = np.abs(student - teacher).mean((1, 2, 3))
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def variation(x, mask):
  """The cosine of each pixel with the mean of its class in the image."""
  result = np.zeros(mask.shape)
  for i in range(len(x)):
    for k in set(mask[i].ravel()) - {IGNORE}:
      member = mask[i] == k
      result[i][member] = cosine(x[i][member], x[i][member].mean(0))
  return result


def test_intra_class_variation_is_that_of_the_centres_of_each_image():
  student, teacher = maps(C), maps(2 * C)
  loss = losses.intra_class_variation_loss(
    student, teacher, MASK, num_classes=K
  )
  difference = variation(student, MASK) - variation(teacher, MASK)
  counts = np.maximum((MASK != IGNORE).sum((1, 2)), 1)
  expected = (difference**2).sum((1, 2)) / counts
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  assert loss[2] == 0


@pytest.mark.parametrize('nodes', [2, 8])
def test_pairwise_loss_compares_similarities_between_pooled_places(nodes):
  student, teacher = maps(C, (4, 4)), maps(K, (4, 4))
  loss = losses.pairwise_similarity_loss(student, teacher, nodes=nodes)
  side = min(nodes, 4)
  for i in range(B):
    grams = []
    for x in (student[i], teacher[i]):
      x = x.reshape(side, 4 // side, side, 4 // side, -1).mean((1, 3))
      x = x.reshape(side**2, -1)
      x /= np.linalg.norm(x, axis=1, keepdims=True)
      grams.append(x @ x.T)
    expected = ((grams[0] - grams[1]) ** 2).mean()
    assert float(loss[i]) == pytest.approx(expected, rel=1e-5)


def test_a_mask_of_another_size_gives_each_place_its_nearest_class():
  student, teacher = maps(K), maps(K)
  large = MASK.repeat(3, 1).repeat(3, 2)
  for name, keys in (
    ('pixel_soft_target_loss', {}),
    ('intra_class_variation_loss', {'num_classes': K}),
  ):
    loss = getattr(losses, name)
    np.testing.assert_array_equal(
      loss(student, teacher, large, **keys),
      loss(student, teacher, MASK, **keys),
    )


def test_ignored_pixels_have_no_gradient():
  student, teacher = maps(K), maps(K)

  def total(x):
    pixels = losses.pixel_soft_target_loss(x, teacher, MASK)
    centres = losses.intra_class_variation_loss(x, teacher, MASK, num_classes=K)
    return (pixels + centres).sum()

  gradient = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(student)))
  assert np.isfinite(gradient).all()
  assert not gradient[MASK == IGNORE].any()
  assert gradient[MASK != IGNORE].any(-1).all()


def test_numbers_out_of_range_are_refused():
  x = maps(K)
  with pytest.raises(UsageError, match='temperature: expected'):
    losses.channel_wise_loss(x, x, temperature=0.0)
  with pytest.raises(UsageError, match='temperature: expected'):
    losses.pixel_soft_target_loss(x, x, MASK, temperature=-1.0)
  with pytest.raises(UsageError, match='nodes: expected'):
    losses.pairwise_similarity_loss(x, x, nodes=0)
  with pytest.raises(UsageError, match='num_classes: expected'):
    losses.intra_class_variation_loss(x, x, MASK, num_classes=0)
