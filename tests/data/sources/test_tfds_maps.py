"""Masks and depths of data sets that TFDS has prepared."""

import io
import sys

import numpy as np
import PIL.Image
import pytest

from jaxdistill import tasks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import IGNORE
from jaxdistill.data.sources import images
from jaxdistill.data.sources.tfds_maps import tfds_maps

# With the version, TFDS takes the sizes of the tiny images from the files.
CITYSCAPES = 'cityscapes/semantic_segmentation:1.0.0'
NYU = 'nyu_depth_v2:0.0.1'
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (6, 8, 10, 3), np.uint8)
# The values of Cityscapes: 7 is the road, 33 a bicycle, 0 to 6 are ignored.
IDS = RNG.choice([7, 26, 33, 0, 4, 255], (6, 8, 10)).astype(np.uint8)
DEPTH = RNG.uniform(0.5, 9, (6, 8, 10)).astype(np.float16)
DEPTH[:, 0] = 0


def png(array):
  """The file of an image or a mask."""
  file = io.BytesIO()
  PIL.Image.fromarray(array).save(file, 'PNG')
  file.seek(0)
  return file


@pytest.fixture(scope='module')
def folder(tmp_path_factory, write_tfds):
  """Tiny data sets with the names and features of the real ones."""
  from tensorflow_datasets import features

  path = tmp_path_factory.mktemp('maps')
  image = features.Image(shape=(8, 10, 3))
  for name, keys, fields, examples in (
    (
      'cityscapes',
      {'config': 'semantic_segmentation'},
      {
        'image_id': features.Text(),
        'image_left': image,
        'segmentation_label': features.Image(shape=(8, 10, 1)),
      },
      [
        {
          'image_id': str(i),
          'image_left': png(IMAGE[i]),
          'segmentation_label': png(IDS[i]),
        }
        for i in range(6)
      ],
    ),
    (
      'nyu_depth_v2',
      {'version': '0.0.1'},
      {
        'image': image,
        'depth': features.Tensor(shape=(8, 10), dtype=np.float16),
      },
      [{'image': png(IMAGE[i]), 'depth': DEPTH[i]} for i in range(6)],
    ),
  ):
    splits = {'train': examples[:4], 'validation': examples[4:]}
    write_tfds(path, name, fields, splits, **keys)
  return str(path)


def order(folder, name):
  """The numbers of the examples of each split, as TFDS has shuffled them."""
  import tensorflow_datasets

  feature = 'image_left' if name == CITYSCAPES else 'image'
  builder = tensorflow_datasets.builder(name, data_dir=folder)
  return {
    ours: [
      next(i for i in range(6) if (IMAGE[i] == x[feature]).all())
      for x in builder.as_data_source(split)
    ]
    for ours, split in (('train', 'train'), ('test', 'validation'))
  }


@pytest.mark.parametrize('stream', [False, True])
def test_masks_of_cityscapes_keep_the_classes_of_its_benchmark(folder, stream):
  data = tfds_maps(CITYSCAPES, data_dir=folder, validation=0, stream=stream)
  assert (data.num_classes, len(data.label_names)) == (19, 19)
  classes = {7: 'road', 26: 'car', 33: 'bicycle'}
  for split, rows in order(folder, CITYSCAPES).items():
    columns = data.splits[split]
    assert isinstance(columns['mask'], images.LazyImages) == stream
    np.testing.assert_array_equal(columns['image'][:], IMAGE[rows])
    mask = columns['mask'][:]
    for number, name in classes.items():
      expected = IDS[rows] == number
      found = mask == data.label_names.index(name)
      np.testing.assert_array_equal(found, expected)
    ignored = ~np.isin(IDS[rows], list(classes))
    np.testing.assert_array_equal(mask == IGNORE, ignored)
  tasks.segmentation().check(data)


@pytest.mark.parametrize('stream', [False, True])
def test_depths_of_nyu_are_metres(folder, stream):
  data = tfds_maps(NYU, data_dir=folder, validation=0, stream=stream)
  assert data.num_classes == 0
  for split, rows in order(folder, NYU).items():
    columns = data.splits[split]
    assert columns['depth'].dtype == np.float16
    np.testing.assert_array_equal(columns['depth'][:], DEPTH[rows])
    np.testing.assert_array_equal(columns['image'][:], IMAGE[rows])
  tasks.depth().check(data)


def test_images_and_maps_get_one_size_together(folder):
  for name, column, values in (
    (CITYSCAPES, 'mask', IDS),
    (NYU, 'depth', DEPTH),
  ):
    data = tfds_maps(name, data_dir=folder, image_size=(4, 5), validation=0)
    test = data.splits['test']
    assert test['image'].shape == (2, 4, 5, 3)
    rows = order(folder, name)['test']
    nearest = values[rows][:, 1::2, 1::2]
    if column == 'depth':
      np.testing.assert_array_equal(test['depth'], nearest)
    else:
      np.testing.assert_array_equal(
        test['mask'] == 0, nearest == 7, err_msg='the road'
      )


@pytest.mark.parametrize(
  ('dataset', 'options', 'words'),
  [
    ('ade20k', {}, "unknown data.dataset 'ade20k'"),
    (CITYSCAPES, {'test_split': 'test'}, "no split 'test'"),
    (CITYSCAPES, {'image_size': 4}, 'image_size: expected'),
  ],
)
def test_other_data_sets_and_splits_are_refused(
  dataset, options, words, folder
):
  with pytest.raises(UsageError, match=words):
    tfds_maps(dataset, data_dir=folder, **options)


def test_what_is_not_prepared_needs_tensorflow(tmp_path):
  with pytest.raises(UsageError, match=r'tfds build nyu.* needs TensorFlow'):
    tfds_maps('nyu_depth_v2', data_dir=str(tmp_path))


def test_tensorflow_is_never_imported(folder):
  tfds_maps(NYU, data_dir=folder)
  assert 'tensorflow' not in sys.modules
