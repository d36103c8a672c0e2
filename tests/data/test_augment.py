"""Augmentation: what each function may change, and what decides it."""

import jax
import numpy as np
import pytest

from jaxdistill.data import augment

RNG = np.random.default_rng(0)
B, H, W, C = 64, 5, 6, 2
# No zeros: a zero was padded.
IMAGE = RNG.integers(1, 256, (B, H, W, C), dtype=np.uint8)
BATCH = {
  'image': jax.numpy.asarray(IMAGE),
  'label': jax.numpy.arange(B),
  'index': jax.numpy.arange(B),
}
ALL = {
  'none': augment.none(),
  'standardize': augment.standardize((100.0, 50.0), (10.0, 20.0)),
  'pad_crop': augment.pad_crop(2),
  'flip': augment.flip(),
  'crop_flip': augment.crop_flip(padding=1),
}


def outcome(function, seed=0):
  return np.asarray(function(jax.random.key(seed), BATCH)['image'])


@pytest.mark.parametrize('name', ALL)
def test_only_the_image_changes_and_keeps_its_shape(name):
  out = jax.jit(ALL[name])(jax.random.key(0), BATCH)
  assert set(out) == set(BATCH)
  assert out['image'].shape == IMAGE.shape
  for key in ('label', 'index'):
    np.testing.assert_array_equal(out[key], BATCH[key])


@pytest.mark.parametrize('name', ALL)
def test_the_key_alone_decides_and_jit_changes_nothing(name):
  first, again = outcome(ALL[name], 3), outcome(jax.jit(ALL[name]), 3)
  np.testing.assert_array_equal(first, again)
  if name not in ('none', 'standardize'):
    assert not np.array_equal(first, outcome(ALL[name], 4))


def shifted(image, down, right):
  """The image moved by so many pixels, zeros where nothing was."""
  out = np.zeros_like(image)
  rows = slice(max(0, down), H + min(0, down))
  columns = slice(max(0, right), W + min(0, right))
  source_rows = slice(max(0, -down), H + min(0, -down))
  source_columns = slice(max(0, -right), W + min(0, -right))
  out[rows, columns] = image[source_rows, source_columns]
  return out


def test_a_crop_is_the_image_shifted_with_zeros_around():
  moves = set()
  for image, cropped in zip(IMAGE, outcome(augment.pad_crop(1))):
    found = [
      (down, right)
      for down in (-1, 0, 1)
      for right in (-1, 0, 1)
      if np.array_equal(cropped, shifted(image, down, right))
    ]
    assert len(found) == 1
    moves.update(found)
  assert len(moves) == 9  # of 64 draws; misses one in 2,000 seeds


def test_a_flip_mirrors_columns_of_about_half_of_the_images():
  out = outcome(augment.flip())
  mirrored = [np.array_equal(o, i[:, ::-1]) for o, i in zip(out, IMAGE)]
  same = [np.array_equal(o, i) for o, i in zip(out, IMAGE)]
  assert all(a != b for a, b in zip(mirrored, same))
  assert 20 <= sum(mirrored) <= 44  # 3 standard deviations around 32


def test_standardize_matches_numpy():
  mean, std = (100.0, 50.0), (10.0, 20.0)
  expected = (IMAGE.astype(np.float64) - mean) / std
  out = outcome(ALL['standardize'])
  assert out.dtype == np.float32
  np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_chain_applies_in_order_with_a_key_for_each():
  keys = []

  def record(rng, batch):
    keys.append(tuple(np.asarray(jax.random.key_data(rng))))
    return {**batch, 'image': 2 * batch['image'] + len(keys)}

  out = augment.chain(record, record)(jax.random.key(0), {'image': np.ones(1)})
  np.testing.assert_array_equal(out['image'], [2 * (2 * 1 + 1) + 2])
  assert len(set(keys)) == 2


def test_the_corner_of_a_crop_and_the_flip_are_drawn_apart():
  """Twice the same augmentation in a chain does not draw twice the same."""
  twice = outcome(augment.chain(augment.flip(), augment.flip()))
  same = [np.array_equal(o, i) for o, i in zip(twice, IMAGE)]
  assert 0 < sum(same) < B


def test_none_and_padding_0_without_mirror_leave_the_image_alone():
  np.testing.assert_array_equal(outcome(augment.none()), IMAGE)
  plain = augment.crop_flip(padding=0, mirror=False)
  np.testing.assert_array_equal(outcome(plain), IMAGE)


def test_crop_flip_without_mirror_only_crops():
  out = outcome(augment.crop_flip(padding=1, mirror=False))
  for image, cropped in zip(IMAGE, out):
    assert any(
      np.array_equal(cropped, shifted(image, down, right))
      for down in (-1, 0, 1)
      for right in (-1, 0, 1)
    )
