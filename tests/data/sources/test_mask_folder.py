"""Folders of images and masks."""

import sys

import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.data.loading import batches, streaming
from jaxdistill.data.sources import lazy_maps
from jaxdistill.data.sources.mask_folder import mask_folder
from jaxdistill.tasks import segmentation

NAMES = ('ground', 'grey', 'white')
RNG = np.random.default_rng(0)
MASK = RNG.integers(0, 3, (4, 6, 8)).astype(np.uint8)
MASK[:, 0] = 255
IMAGE = RNG.integers(0, 256, (4, 6, 8, 3), np.uint8)


def write(root, save=None):
  """Writes both splits; `save` makes the picture of a mask."""
  save = save or PIL.Image.fromarray
  for split in ('train', 'test'):
    for kind in ('images', 'masks'):
      (root / split / kind).mkdir(parents=True)
    for i in range(4):
      name = f'{i}.png'
      PIL.Image.fromarray(IMAGE[i]).save(root / split / 'images' / name)
      save(MASK[i]).save(root / split / 'masks' / name)
  return root


def read(root, **options):
  return mask_folder(str(root), label_names=NAMES, validation=0, **options)


def palette(mask):
  image = PIL.Image.fromarray(mask, 'L').convert('P')
  image.putpalette([0, 0, 0, 200, 30, 10, 9, 9, 90] + 253 * [7, 7, 7])
  image.putdata(mask.reshape(-1).tolist())
  return image


@pytest.mark.parametrize(
  'save',
  [
    PIL.Image.fromarray,
    palette,
    lambda mask: PIL.Image.fromarray(mask.astype(np.uint16)),
  ],
)
def test_the_values_of_grey_levels_and_palettes_are_the_classes(save, tmp_path):
  data = read(write(tmp_path, save))
  for split in data.splits.values():
    np.testing.assert_array_equal(split['mask'], MASK)
    np.testing.assert_array_equal(split['image'], IMAGE)
  assert (data.num_classes, data.label_names) == (3, NAMES)
  jd.tasks.segmentation().check(data)


def test_other_values_may_stand_for_no_class(tmp_path):
  data = read(write(tmp_path), ignore=(2, 255))
  expected = np.where(MASK == 2, 255, MASK)
  np.testing.assert_array_equal(data.splits['test']['mask'], expected)


def test_each_class_may_have_a_value_of_its_own(tmp_path):
  stored = np.zeros(256, np.uint8)
  stored[[1, 2, 255]] = 90, 255, 7
  root = write(tmp_path, lambda mask: PIL.Image.fromarray(stored[mask]))
  data = read(root, values=(0, 90, 255), ignore=(7,))
  np.testing.assert_array_equal(data.splits['train']['mask'], MASK)
  with pytest.raises(UsageError, match=r'classes from 0 to 2, .* got 7'):
    read(root)
  with pytest.raises(UsageError, match=r'the classes \(0, 91, 255\), .* 90'):
    read(root, values=(0, 91, 255), ignore=(7,))


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'values': (0, 1)}, 'values: expected 3 entries'),
    (
      {'values': (0, 1, 1)},
      r'different value for each class, got \[0, 1, 1\]',
    ),
    ({'values': (0, 1, -1)}, 'values: expected a whole number from 0'),
    ({'values': [[0, 0, 0]] * 3}, r'whole number from 0 .* got \[0, 0, 0\]'),
    (
      {'values': (0, 1, 2), 'ignore': (2,)},
      'not in data.values, got 2',
    ),
  ],
)
def test_values_that_do_not_tell_classes_apart_are_refused(
  options, words, tmp_path
):
  with pytest.raises(UsageError, match=words):
    read(tmp_path, **options)


@pytest.mark.parametrize('kind', ['images', 'masks'])
def test_two_files_of_one_name_are_refused(kind, tmp_path):
  folder = write(tmp_path) / 'train' / kind
  PIL.Image.fromarray(MASK[0]).save(folder / '1.tif')
  with pytest.raises(UsageError, match=r"got '1.png' and '1.tif'"):
    read(tmp_path)


def test_a_mask_whose_values_jpeg_has_changed_is_refused(tmp_path):
  folder = write(tmp_path) / 'test' / 'masks'
  (folder / '1.png').unlink()
  PIL.Image.fromarray(MASK[0]).save(folder / '1.jpg')
  with pytest.raises(UsageError, match='expected a PNG file, got JPEG'):
    read(tmp_path)


def test_what_is_not_a_pair_of_image_and_mask_is_refused(tmp_path):
  root = write(tmp_path)
  with pytest.raises(UsageError, match=r'no folder .*val'):
    read(root, train_split='val')
  mask = root / 'train' / 'masks' / '2.png'
  for picture, words in (
    (PIL.Image.fromarray(IMAGE[0]), 'grey levels or a palette, .* mode RGB'),
    (PIL.Image.fromarray(MASK[0, :3]), r'its image, \(6, 8\), got \(3, 8\)'),
    (
      PIL.Image.fromarray(MASK[0].astype(np.uint16) + 300),
      'classes from 0 to 2, or values that data.ignore names, got 555',
    ),
  ):
    picture.save(mask)
    with pytest.raises(UsageError, match=words):
      read(root)
  mask.write_bytes(b'no image')
  with pytest.raises(UsageError, match=r'2.png: cannot be read as an image'):
    read(root)
  mask.unlink()
  with pytest.raises(UsageError, match="no mask for '2'"):
    read(root)


def test_one_folder_for_both_splits_is_refused(tmp_path):
  with pytest.raises(
    UsageError, match=r"than data.train_split, .* 'train' for"
  ):
    read(write(tmp_path), test_split='train')


@pytest.mark.parametrize('stream', [False, True])
def test_a_part_of_one_folder_may_be_the_test_split(stream, tmp_path):
  options = {'train_split': '.', 'test_split': None, 'test': 0.25}
  root = write(tmp_path) / 'train'
  splits = read(root, stream=stream, **options).splits
  image, mask = (
    np.concatenate([splits[name][key][:] for name in ('train', 'test')])
    for key in ('image', 'mask')
  )
  assert len(splits['test']['image']) == 1
  order = [next(i for i in range(4) if (x == IMAGE[i]).all()) for x in image]
  assert sorted(order) == [0, 1, 2, 3]
  np.testing.assert_array_equal(mask, MASK[order])


def test_images_and_masks_get_one_size_together(tmp_path):
  root = write(tmp_path)
  for kind, pixels in (('images', IMAGE), ('masks', MASK)):
    large = PIL.Image.fromarray(pixels[0].repeat(2, 0).repeat(2, 1))
    large.save(root / 'train' / kind / '0.png')
  data = read(root, image_size=(6, 8))
  train = data.splits['train']
  assert train['image'].shape == (4, 6, 8, 3)
  # Every second pixel of the large mask, and pixels that kept their size.
  np.testing.assert_array_equal(train['mask'], MASK)
  np.testing.assert_array_equal(train['image'][1:], IMAGE[1:])
  smaller = read(root, image_size=(3, 4)).splits['train']
  np.testing.assert_array_equal(smaller['mask'][0], MASK[0, 1::2, 1::2])


@pytest.mark.parametrize('size', [(6,), (0, 8), (6, 8, 3)])
def test_a_size_that_is_not_a_height_and_a_width_is_refused(size, tmp_path):
  with pytest.raises(UsageError, match='image_size: expected'):
    read(write(tmp_path), image_size=size)


@pytest.mark.parametrize('size', [None, (3, 4)])
def test_the_streamed_data_set_equals_the_one_in_memory(size, tmp_path):
  root = write(tmp_path)
  memory, lazy = (
    mask_folder(
      str(root),
      label_names=NAMES,
      ignore=(2,),
      image_size=size,
      validation=2,
      stream=stream,
    )
    for stream in (False, True)
  )
  assert lazy._replace(splits={}) == memory._replace(splits={})
  for name, split in memory.splits.items():
    assert isinstance(lazy.splits[name]['mask'], lazy_maps.LazyMasks)
    assert lazy.splits[name]['mask'].shape == split['mask'].shape
    for key, column in split.items():
      np.testing.assert_array_equal(lazy.splits[name][key][:], column)


def test_batches_of_streamed_masks_are_those_of_masks_in_memory(tmp_path):
  root = write(tmp_path)
  memory, lazy = (read(root, stream=stream) for stream in (False, True))
  jd.tasks.segmentation().check(lazy)
  streamed = streaming.StreamedBatches(lazy.splits['train'], 2, (3,), workers=0)
  expected = batches.Batches(memory.splits['train'], 2, (3,))
  for step in range(3):
    for key, column in expected(step).items():
      np.testing.assert_array_equal(streamed(step)[key], column)
  streamed.close()


def test_a_streamed_mask_is_checked_when_it_is_read(tmp_path):
  root = write(tmp_path)
  PIL.Image.fromarray(MASK[0] | 4).save(root / 'train' / 'masks' / '2.png')
  data = read(root, stream=True)
  data.splits['train']['mask'][:2]
  with pytest.raises(UsageError, match=r'from 0 to 2, .* got [456]\); .*2.png'):
    data.splits['train']['mask'][:]


def test_notes_about_streamed_masks_read_some_of_them(tmp_path, monkeypatch):
  root = write(tmp_path)
  monkeypatch.setattr(sys.modules[segmentation.__module__], '_SAMPLE', 2)
  data = read(root, stream=True)
  assert segmentation().notes(data) == ()
  for i in (0, 3):  # the first and the last one
    mask = np.where(MASK[i] == 2, 255, MASK[i])
    PIL.Image.fromarray(mask).save(root / f'train/masks/{i}.png')
  assert segmentation().notes(data) == (
    "data: 2 of the training masks have no pixel of 1 of the 3 classes: 'white'"
    '; pixels with 255 have no class',
  )


def test_more_classes_than_a_mask_can_hold_are_refused():
  lazy_maps.class_table(range(255), ())
  with pytest.raises(UsageError, match=r'at most 255 classes, .* got 256'):
    lazy_maps.class_table(range(256), ())


ORIENTATION = 0x0112  # the tag of EXIF


def test_an_image_that_exif_turns_upside_down_is_refused(tmp_path):
  write(tmp_path)
  picture, exif = tmp_path / 'train/images/2.png', PIL.Image.Exif()
  exif[ORIENTATION] = 3
  PIL.Image.fromarray(IMAGE[2]).save(picture, exif=exif)
  with pytest.raises(UsageError, match=r'2\.png: expected an image that is st'):
    read(tmp_path)


def test_a_mask_of_the_size_of_the_upright_image_belongs_to_it(tmp_path):
  write(tmp_path)
  exif = PIL.Image.Exif()
  exif[ORIENTATION] = 6
  for i in range(4):
    picture = tmp_path / f'train/images/{i}.png'
    PIL.Image.fromarray(IMAGE[i]).save(picture, exif=exif)
  with pytest.raises(UsageError, match='a mask of the size of its image'):
    read(tmp_path, image_size=(8, 6))
  for i in range(4):
    mask = PIL.Image.fromarray(np.rot90(MASK[i], -1))
    mask.save(tmp_path / f'train/masks/{i}.png')
  train = read(tmp_path, image_size=(8, 6)).splits['train']
  np.testing.assert_array_equal(train['image'], np.rot90(IMAGE, -1, (1, 2)))
  np.testing.assert_array_equal(train['mask'], np.rot90(MASK, -1, (1, 2)))
