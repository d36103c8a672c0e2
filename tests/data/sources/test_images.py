"""Decoding images, and columns that are decoded on demand."""

import io
import pickle
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import arrays, channels, decoding, images

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 5, 4, 3), np.uint8)


def encoded(image, kind='PNG', mode=None, **options) -> bytes:
  file = io.BytesIO()
  image = PIL.Image.fromarray(image)
  image.convert(mode or image.mode).save(file, kind, **options)
  return file.getvalue()


class Files(NamedTuple):
  encoded: tuple[bytes, ...]

  def read(self, places):
    return [self.encoded[place] for place in places]

  def name(self, place):
    return f'file {place}'


FILES = Files(tuple(map(encoded, IMAGES)))


def column(files=FILES, **options) -> images.LazyImages:
  return images.LazyImages(
    files, np.arange(len(files.encoded)), IMAGES.shape[1:], **options
  )


@pytest.mark.parametrize('threads', [1, 3, 50])
def test_a_lazy_column_equals_the_array(threads):
  lazy = column(threads=threads)
  assert len(lazy) == len(IMAGES)
  assert (lazy.shape, lazy.dtype) == (IMAGES.shape, IMAGES.dtype)
  rows = np.array([7, 0, 29, 7])
  for at in (slice(None), slice(3, 8), slice(-2, None), rows, rows[:0]):
    np.testing.assert_array_equal(lazy[at], IMAGES[at])


def test_rows_of_selected_rows_equal_those_of_the_array():
  first, second = np.array([9, 4, 20, 1]), np.array([2, 0])
  lazy = column().select(first)
  np.testing.assert_array_equal(lazy[second], IMAGES[first][second])
  np.testing.assert_array_equal(lazy.select(second)[:], IMAGES[first][second])


def test_a_pickled_column_decodes_the_same():
  lazy = pickle.loads(pickle.dumps(column()))
  np.testing.assert_array_equal(lazy[:], IMAGES)


def test_a_data_set_of_lazy_columns_equals_one_of_arrays():
  label = np.arange(30) % 3
  both = [
    arrays.from_arrays(x, label, x, label, train_subset=4)
    for x in (IMAGES, column())
  ]
  assert both[0]._replace(splits={}) == both[1]._replace(splits={})
  for name, split in both[0].splits.items():
    for key in split:
      lazy = both[1].splits[name][key]
      np.testing.assert_array_equal(lazy[:], split[key])


def test_statistics_of_many_lazy_images_come_from_a_sample(monkeypatch):
  monkeypatch.setattr(channels, 'SAMPLE', 10)
  label = np.arange(30) % 3
  rows = np.linspace(0, 29, 10).astype(int)
  dataset = arrays.from_arrays(column(), label, IMAGES, label, validation=0)
  np.testing.assert_allclose(dataset.mean, IMAGES[rows].mean((0, 1, 2)))
  np.testing.assert_allclose(dataset.std, IMAGES[rows].std((0, 1, 2)))


@pytest.mark.parametrize('threads', [1, 3])
@pytest.mark.parametrize(
  'wrong',
  [b'', b'text', FILES.encoded[0][:-30], encoded(IMAGES[0][1:])],
  ids=['missing', 'garbage', 'truncated', 'smaller'],
)
def test_the_first_image_that_cannot_be_decoded_is_named(wrong, threads):
  files = Files((*FILES.encoded[:3], wrong, *FILES.encoded[4:8], wrong))
  lazy = column(files, threads=threads)
  np.testing.assert_array_equal(lazy[:3], IMAGES[:3])
  with pytest.raises(
    UsageError, match=r'^2 of 8 images .*; the first is file 3'
  ):
    lazy[1:]


def test_images_of_every_mode_become_rgb():
  grey = IMAGES[0, :, :, 0]
  decoded = decoding.decode(encoded(grey))
  np.testing.assert_array_equal(decoded, np.stack([grey] * 3, -1))
  for mode in ('P', 'RGBA', '1', 'LA'):
    decoded = decoding.decode(encoded(IMAGES[0], mode=mode))
    assert decoded.shape == (5, 4, 3)
  cmyk = decoding.decode(encoded(IMAGES[0], 'JPEG', mode='CMYK'))
  assert cmyk.shape == (5, 4, 3)


def test_one_channel_can_be_kept():
  grey = IMAGES[0, :, :, :1]
  decoded = decoding.decode(encoded(grey[..., 0]), channels=1)
  np.testing.assert_array_equal(decoded, grey)


def test_the_middle_square_is_kept():
  """The two outer columns on each side are removed."""
  image = np.zeros((4, 8, 3), np.uint8)
  image[:, :2], image[:, 6:], image[:, 4:6] = 255, 255, 100
  square = decoding.decode(encoded(image), image_size=4)
  np.testing.assert_array_equal(square[0, :, 0], [0, 0, 100, 100])


def test_resizing_averages_over_all_pixels():
  stripes = np.zeros((16, 20, 3), np.uint8)
  stripes[:, ::2] = 255
  small = decoding.decode(encoded(stripes), image_size=4)
  assert small.shape == (4, 4, 3)
  assert np.abs(small.astype(int) - 128).max() <= 16


def test_an_image_of_the_requested_size_is_not_changed():
  image = IMAGES[0][:4]
  np.testing.assert_array_equal(
    decoding.decode(encoded(image), image_size=4), image
  )


def test_a_large_jpeg_is_decoded_almost_as_if_resized_from_full_size():
  low = PIL.Image.fromarray(IMAGES[0]).resize((400, 300))
  file = io.BytesIO()
  low.save(file, 'JPEG', quality=95)
  decoded = decoding.decode(file.getvalue(), image_size=32)
  whole = PIL.Image.open(io.BytesIO(file.getvalue())).crop((50, 0, 350, 300))
  expected = np.asarray(whole.resize((32, 32), PIL.Image.Resampling.BILINEAR))
  assert np.abs(decoded.astype(int) - expected).max() <= 6
