"""The operations of AutoAugment against those of Pillow, image by image."""

import functools

import jax
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest

from jaxdistill.data.transforms import operations

RNG = np.random.default_rng(0)
# Like photographs, some are smooth, some have few levels, some are dark.
SMOOTH = np.stack(
  [
    PIL.Image.fromarray(x).resize((32, 32))
    for x in RNG.integers(0, 256, (12, 5, 5, 3), np.uint8)
  ]
)
NOISE = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
IMAGES = np.concatenate([SMOOTH, NOISE, SMOOTH // 4 + 30, NOISE[:1] * 0 + 77])
GREY = 128


def affine(image, *matrix):
  kind = PIL.Image.Transform.AFFINE
  return image.transform(image.size, kind, matrix, fillcolor=(GREY,) * 3)


def enhanced(kind, image, amount):
  return kind(image).enhance(1 + amount)


PILLOW = {
  'identity': lambda x, m: x,
  'shear_x': lambda x, m: affine(x, 1, m, 0, 0, 1, 0),
  'shear_y': lambda x, m: affine(x, 1, 0, 0, m, 1, 0),
  'translate_x': lambda x, m: affine(x, 1, 0, m * x.size[0], 0, 1, 0),
  'translate_y': lambda x, m: affine(x, 1, 0, 0, 0, 1, m * x.size[1]),
  'rotate': lambda x, m: x.rotate(m, fillcolor=(GREY,) * 3),
  'color': functools.partial(enhanced, PIL.ImageEnhance.Color),
  'contrast': functools.partial(enhanced, PIL.ImageEnhance.Contrast),
  'brightness': functools.partial(enhanced, PIL.ImageEnhance.Brightness),
  'sharpness': functools.partial(enhanced, PIL.ImageEnhance.Sharpness),
  'posterize': lambda x, m: PIL.ImageOps.posterize(x, int(m)),
  'solarize': lambda x, m: PIL.ImageOps.solarize(x, m),
  'invert': lambda x, m: PIL.ImageOps.invert(x),
  'autocontrast': lambda x, m: PIL.ImageOps.autocontrast(x),
  'equalize': lambda x, m: PIL.ImageOps.equalize(x),
}
GEOMETRIC = operations.OPERATIONS[1:6]
run = jax.jit(operations.operate, static_argnums=3)


def operated(images, name, amounts):
  number = np.full(len(images), operations.NUMBER[name])
  return np.asarray(run(images, number, np.float32(amounts), GREY))


def strengths(name):
  """Returns amounts of all ten levels in turn, in both directions."""
  levels = operations.amounts(np.linspace(0, 1, 10))[operations.NUMBER[name]]
  cycle = np.resize(levels, len(IMAGES))
  if name in operations.SIGNED:
    cycle = cycle * np.where(RNG.random(len(IMAGES)) < 0.5, -1, 1)
  return cycle


@pytest.mark.parametrize('name', operations.OPERATIONS)
def test_an_operation_equals_that_of_pillow(name):
  amounts = strengths(name)
  out = operated(IMAGES, name, amounts)
  assert out.dtype == np.uint8
  expected = np.stack(
    [PILLOW[name](PIL.Image.fromarray(x), m) for x, m in zip(IMAGES, amounts)]
  )
  if name in GEOMETRIC:
    assert (out == expected).all(-1).mean() >= 0.995
  else:
    difference = np.abs(out.astype(int) - expected.astype(int))
    # Pillow truncates, so rounding errors decide some pixels.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.03
  changed = (expected != IMAGES).any((1, 2, 3)).mean()
  assert changed == 0 if name == 'identity' else changed > 0.4


@pytest.mark.parametrize('name', GEOMETRIC)
def test_images_of_other_sizes_move_as_in_pillow(name):
  images = RNG.integers(0, 256, (6, 20, 12, 3), np.uint8)
  amounts = strengths(name)[4:10]
  expected = [
    PILLOW[name](PIL.Image.fromarray(x), m) for x, m in zip(images, amounts)
  ]
  assert (operated(images, name, amounts) == np.stack(expected)).mean() >= 0.995


def test_each_image_of_a_batch_gets_its_own_operation():
  names = [*operations.OPERATIONS]
  amounts = [strengths(name)[7] for name in names]
  images = IMAGES[: len(names)]
  together = run(images, np.arange(len(names)), np.float32(amounts), GREY)
  for i, name in enumerate(names):
    alone = operated(images[i : i + 1], name, amounts[i : i + 1])
    np.testing.assert_array_equal(together[i], alone[0])


def test_operations_work_on_grey_images():
  grey = IMAGES[:4, :, :, :1]
  for name in ('color', 'contrast', 'equalize', 'sharpness'):
    expected = [
      PILLOW[name](PIL.Image.fromarray(x[..., 0], 'L'), 0.5) for x in grey
    ]
    out = operated(grey, name, [0.5] * 4)[..., 0].astype(int)
    assert np.abs(out - np.stack(expected)).max() <= 1


def test_strengths_are_those_of_the_paper():
  smallest, largest = operations.amounts(np.array([0.0, 1.0])).T
  by_name = dict(zip(operations.OPERATIONS, zip(smallest, largest)))
  assert by_name['shear_x'] == (0, 0.3)
  assert by_name['translate_y'] == (0, 150 / 331)
  assert by_name['rotate'] == (0, 30)
  assert by_name['sharpness'] == (0, 0.9)
  assert by_name['posterize'] == (8, 4)
  assert by_name['solarize'] == (256, 0)
  assert by_name['equalize'] == (0, 0)
