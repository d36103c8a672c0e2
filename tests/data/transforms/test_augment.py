"""Augmentation: what each function changes, and what it depends on."""

import jax
import numpy as np
import PIL.Image
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.transforms import augment

RNG = np.random.default_rng(0)
B, H, W, C = 64, 5, 6, 2
# Without zeros, so that every zero comes from padding.
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
  'color_jitter': augment.color_jitter(brightness=0.5, contrast=0.5),
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
def test_the_result_depends_only_on_the_key_and_not_on_jit(name):
  first, again = outcome(ALL[name], 3), outcome(jax.jit(ALL[name]), 3)
  np.testing.assert_array_equal(first, again)
  if name not in ('none', 'standardize'):
    assert not np.array_equal(first, outcome(ALL[name], 4))


def shifted(image, down, right):
  """Moves the image by a number of pixels and fills the gap with zeros."""
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
    matches = [
      (down, right)
      for down in (-1, 0, 1)
      for right in (-1, 0, 1)
      if np.array_equal(cropped, shifted(image, down, right))
    ]
    assert len(matches) == 1
    moves.update(matches)
  assert len(moves) == 9  # with 64 draws, one seed in 2,000 misses a move


def test_a_flip_mirrors_about_half_of_the_images():
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


def test_chain_applies_functions_in_order_each_with_its_own_key():
  keys = []

  def record(rng, batch):
    keys.append(tuple(np.asarray(jax.random.key_data(rng))))
    return {**batch, 'image': 2 * batch['image'] + len(keys)}

  out = augment.chain(record, record)(jax.random.key(0), {'image': np.ones(1)})
  np.testing.assert_array_equal(out['image'], [2 * (2 * 1 + 1) + 2])
  assert len(set(keys)) == 2


def test_the_same_function_draws_differently_at_two_places_of_a_chain():
  twice = outcome(augment.chain(augment.flip(), augment.flip()))
  same = [np.array_equal(o, i) for o, i in zip(twice, IMAGE)]
  assert 0 < sum(same) < B


def test_none_and_padding_0_without_mirror_do_not_change_the_image():
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


# Smooth like photographs, `[4, 64, 48, 3]`.
PHOTOS = np.stack(
  [
    PIL.Image.fromarray(x).resize((48, 64))
    for x in RNG.integers(0, 256, (4, 6, 5, 3), np.uint8)
  ]
)


def pillow(image, corner, part, size):
  """Resizes a part of an image with Pillow; corner and part (down, right)."""
  box = (corner[1], corner[0], corner[1] + part[1], corner[0] + part[0])
  bilinear = PIL.Image.Resampling.BILINEAR
  resized = PIL.Image.fromarray(image).resize(size[::-1], bilinear, box=box)
  return np.asarray(resized).astype(int)


def boxes(rng, batch, **options):
  """Returns the rectangles of `random_resized_crop`: (corners, sizes)."""
  scale = options.get('scale', (0.08, 1.0))
  ratio = options.get('ratio', (3 / 4, 4 / 3))
  drawn = jax.jit(augment._random_boxes, static_argnums=(1, 2, 3))
  corner, part = drawn(rng, batch.shape, scale, ratio)
  return np.asarray(corner), np.asarray(part)


@pytest.mark.parametrize('size', [8, 90])
def test_a_resized_crop_equals_that_of_pillow(size):
  rng = jax.random.key(size)
  function = jax.jit(augment.random_resized_crop(size))
  out = np.asarray(function(rng, {'image': PHOTOS})['image'])
  assert (out.dtype, out.shape) == (np.uint8, (4, size, size, 3))
  for i, (corner, part) in enumerate(zip(*boxes(rng, PHOTOS))):
    expected = pillow(PHOTOS[i], corner, part, (size, size))
    difference = np.abs(out[i].astype(int) - expected)
    # Pillow ignores pixels outside the part, and rounds after each direction.
    assert difference[1:-1, 1:-1].max() <= 2
    assert difference.max() <= 12


def test_parts_have_the_chosen_areas_and_ratios_and_are_inside():
  whole = np.array([64, 48])
  images = np.broadcast_to(np.uint8(0), (2000, 64, 48, 1))
  corner, part = boxes(jax.random.key(0), images)
  assert (corner >= 0).all() and (corner + part <= whole + 1e-3).all()
  area = part.prod(1) / whole.prod()
  ratio = part[:, 1] / part[:, 0]
  assert 0.08 <= area.min() < 0.1 and 0.9 < area.max() <= 1
  assert 0.75 <= ratio.min() + 1e-4 < 0.78 and 1.3 < ratio.max() < 1.3334
  # The corner is uniformly distributed over the positions that fit.
  position = corner / np.maximum(whole - part, 1e-9)
  assert np.abs(position.mean(0) - 0.5).max() < 0.03


def test_a_crop_of_a_whole_square_is_the_image():
  square = PHOTOS[:, :48]
  function = augment.random_resized_crop(48, scale=(1, 1), ratio=(1, 1))
  out = jax.jit(function)(jax.random.key(0), {'image': square})['image']
  np.testing.assert_array_equal(out, square)


def blended(image, factor, other):
  return np.clip(factor * image + (1 - factor) * other, 0, 255)


def grey(image):
  return (image * [0.299, 0.587, 0.114]).sum(-1, keepdims=True)


@pytest.mark.parametrize(
  ('name', 'other'),
  [
    ('brightness', lambda x: 0.0),
    ('contrast', lambda x: grey(x).mean()),
    ('saturation', grey),
  ],
)
def test_jitter_blends_each_image_with_its_own_factor(name, other):
  function = jax.jit(augment.color_jitter(**{name: 0.4}))
  out = np.asarray(function(jax.random.key(0), {'image': PHOTOS})['image'])
  factors = np.linspace(0.6, 1.4, 801)
  chosen = []
  for image, changed in zip(PHOTOS.astype(float), out):
    errors = [
      np.abs(blended(image, f, other(image)) - changed).max() for f in factors
    ]
    assert (
      min(errors) <= 0.75
    )  # from rounding, and from the steps between the factors
    chosen.append(factors[np.argmin(errors)])
  assert len(set(chosen)) == len(PHOTOS)


def test_the_saturation_of_grey_images_does_not_change():
  function = augment.color_jitter(saturation=1.0)
  image = PHOTOS[..., :1]
  out = function(jax.random.key(0), {'image': image})['image']
  np.testing.assert_array_equal(out, image)


def test_jitter_of_strength_0_changes_nothing():
  out = augment.color_jitter()(jax.random.key(0), {'image': PHOTOS})['image']
  np.testing.assert_array_equal(out, PHOTOS)


def test_imagenet_mirrors_unless_it_is_switched_off():
  square = PHOTOS[:, :48]
  options = {'size': 48, 'scale': (1, 1), 'ratio': (1, 1)}
  for mirror, expected in ((True, {True, False}), (False, {False})):
    function = jax.jit(augment.imagenet(mirror=mirror, **options))
    mirrored = set()
    for seed in range(8):
      for image, out in zip(
        square, function(jax.random.key(seed), {'image': square})['image']
      ):
        mirrored.add(np.array_equal(out, image[:, ::-1]))
        assert np.array_equal(out, image) or mirror
    assert mirrored == expected


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'size': 0}, 'size: .* got 0'),
    ({'scale': (0, 1)}, r'scale: .* at most 1, got \[0, 1\]'),
    ({'scale': (0.5, 1.1)}, r'scale'),
    ({'scale': (0.5,)}, r'scale'),
    ({'ratio': (2, 1)}, r'ratio: .* got \[2, 1\]'),
    ({'brightness': -0.1}, r'brightness: .* got -0\.1'),
  ],
)
def test_wrong_choices_are_rejected(options, message):
  with pytest.raises(UsageError, match=message):
    augment.imagenet(**options)


def centered(images, *size):
  function = jax.jit(augment.center(*size))
  return np.asarray(function(jax.random.key(0), {'image': images})['image'])


def test_the_centre_of_256_pixels_is_224_of_them():
  image = RNG.integers(0, 256, (1, 256, 256, 3), np.uint8)
  np.testing.assert_array_equal(
    centered(image, 224, 224), image[:, 16:240, 16:240]
  )


def test_the_centre_of_the_same_size_is_the_image():
  np.testing.assert_array_equal(centered(PHOTOS, 64, 48), PHOTOS)


@pytest.mark.parametrize(
  ('size', 'part'),
  [
    # Images of (64, 48) contain 2 * (24, 24), of which 7/8 are used ...
    ((24, 24), (42, 42)),
    # ... or at least as many pixels as the result has, ...
    ((46, 46), (46, 46)),
    # ... or as many as there are.
    ((96, 96), (48, 48)),
    ((16, 12), (56, 42)),
  ],
)
def test_the_centre_equals_that_of_pillow(size, part):
  corner = ((64 - part[0]) / 2, (48 - part[1]) / 2)
  out = centered(PHOTOS, *size)
  for image, resized in zip(PHOTOS, out):
    difference = np.abs(resized - pillow(image, corner, part, size))
    assert difference[1:-1, 1:-1].max() <= 2


def test_each_copy_of_a_repeated_image_is_augmented_independently():
  """64 rows hold the first 21 images three times and another one once."""
  rows = np.arange(B) // 3
  same = augment.repeated(augment.none())(jax.random.key(0), BATCH)
  for key, x in BATCH.items():
    np.testing.assert_array_equal(same[key], np.asarray(x)[rows])
  cropped = augment.repeated(augment.pad_crop(2))
  copies = outcome(jax.jit(cropped))[:63].reshape(21, 3, -1)
  equal = (copies == copies[:, :1]).all(-1)
  # Two copies can draw the same of the 25 crops.
  assert equal[:, 1:].sum() < 10


def test_a_batch_of_one_can_be_repeated():
  """Evaluation does this to find out the shapes."""
  one = {k: x[:1] for k, x in BATCH.items()}
  out = augment.repeated(augment.none(), count=5)(jax.random.key(0), one)
  np.testing.assert_array_equal(out['image'], IMAGE[:1])


@pytest.mark.parametrize('count', [0, -1, 1.5, True, float('nan')])
def test_a_count_below_1_or_not_whole_is_rejected(count):
  with pytest.raises(UsageError, match=f'count: .* got {count}'):
    augment.repeated(augment.none(), count=count)
