"""Folders of images and depths."""

import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (4, 6, 8, 3), np.uint8)
LEVELS = RNG.integers(1, 60_000, (4, 6, 8)).astype(np.uint16)
LEVELS[:, 0] = 0
LEVELS[:, 1] = 65_535


def write(root, picture=PIL.Image.fromarray, ending='png'):
  """Writes both splits; `picture` makes the image of levels."""
  for split in ('train', 'test'):
    for kind in ('images', 'depths'):
      (root / split / kind).mkdir(parents=True)
    for i in range(4):
      image = PIL.Image.fromarray(IMAGE[i])
      image.save(root / split / 'images' / f'{i}.png')
      picture(LEVELS[i]).save(root / split / 'depths' / f'{i}.{ending}')
  return str(root)


def test_levels_of_16_bits_are_millimetres(tmp_path):
  data = jd.data.depth_folder(write(tmp_path), validation=0, ignore=(65_535,))
  expected = np.where(LEVELS == 65_535, 0, LEVELS / 1000).astype(np.float32)
  for split in data.splits.values():
    np.testing.assert_array_equal(split['image'], IMAGE)
    np.testing.assert_array_equal(split['depth'], expected)
  jd.tasks.depth().check(data)


def test_floats_in_metres_are_read_too(tmp_path):
  def metres(levels):
    return PIL.Image.fromarray((levels / 1000).astype(np.float32))

  path = write(tmp_path, metres, 'tiff')
  data = jd.data.depth_folder(path, validation=0, unit=1.0)
  depth = data.splits['test']['depth']
  np.testing.assert_allclose(depth, LEVELS / 1000, rtol=1e-6)


def test_streamed_depths_are_those_in_memory_at_any_size(tmp_path):
  path = write(tmp_path)
  sides = {'image_size': (3, 4), 'validation': 0}
  lazy, whole = (
    jd.data.depth_folder(path, stream=stream, **sides).splits['train']
    for stream in (True, False)
  )
  assert whole['depth'].shape == (4, 3, 4)
  assert set(np.unique(whole['depth'])) <= set(
    np.unique((LEVELS / 1000).astype(np.float32))
  )
  assert lazy['depth'].dtype == whole['depth'].dtype == np.float32
  np.testing.assert_array_equal(lazy['depth'][:], whole['depth'])


def test_what_is_not_a_map_of_depths_is_refused(tmp_path):
  path = write(tmp_path)
  with pytest.raises(UsageError, match='unit: expected'):
    jd.data.depth_folder(path, unit=0)
  file = tmp_path / 'train' / 'depths' / '2.png'
  PIL.Image.fromarray(IMAGE[2]).save(file)
  with pytest.raises(UsageError, match=r'depths with one channel.*mode RGB'):
    jd.data.depth_folder(path)
  PIL.Image.fromarray(LEVELS[2, :3]).save(file)
  with pytest.raises(UsageError, match='expected a depth of the size'):
    jd.data.depth_folder(path)
  file.unlink()
  with pytest.raises(UsageError, match="got no depth for '2'"):
    jd.data.depth_folder(path)
