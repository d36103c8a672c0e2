"""Data sets of TFDS with boxes, in the forms of 'voc' and of 'coco/2017'."""

import io

import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import tfds_boxes as module
from jaxdistill.data.sources.tfds_boxes import tfds_boxes


def load(folder, name='tiny_voc', **options):
  options = {'validation': 0, 'image_size': (16, 16), **options}
  return tfds_boxes(name, data_dir=str(folder), **options)


@pytest.mark.parametrize('stream', [False, True])
def test_images_and_boxes_are_resized_together(stream, boxes_dir):
  data = load(boxes_dir, stream=stream)
  jd.tasks.detection().check(data)
  split = data.splits['train']
  assert data.label_names == ('cat', 'dog', 'cow')
  count = (split['classes'] >= 0).sum(1)  # TFDS shuffles the examples
  assert sorted(count) == [0, 1, 2]
  (i,), (j,) = np.flatnonzero(count == 2), np.flatnonzero(count == 1)
  assert split['scale'][i] == 1  # 12x16 into 16x16
  np.testing.assert_allclose(split['boxes'][i], [[3, 8, 9, 16], [0, 0, 6, 4]])
  np.testing.assert_array_equal(split['classes'][i], [2, 0])
  np.testing.assert_array_equal(split['crowd'][i], [False, True])
  np.testing.assert_allclose(split['areas'][i], [48, 24])
  np.testing.assert_allclose(split['extent'][[i, j]], [[12, 16], [8, 16]])
  assert split['scale'][j] == 0.5  # 16x32
  np.testing.assert_allclose(split['boxes'][j, 0], [0, 0, 8, 16])
  image = split['image'][np.array([i, j])]
  assert image[0, :12].all() and not image[0, 12:].any()
  assert image[1, :8].all() and not image[1, 8:].any()


def test_crowds_areas_and_numbers_are_those_of_coco(boxes_dir):
  data = load(boxes_dir, 'tiny_coco')
  train, test = data.splits['train'], data.splits['test']
  # The test split has no objects, so the validation split is the test split.
  assert (train['image_id'][0], test['image_id'][0]) == (139, 42)
  assert train['crowd'].all() and train['areas'][0, 0] == 99
  assert test['classes'].tolist() == [[2]]


@pytest.mark.parametrize(
  'name, options, words',
  [
    ('plain', {}, 'expected one image and one sequence of objects .* got the'),
    (
      'turned',
      {'test_split': 'test'},
      'stored upright, as its boxes are, got one whose EXIF',
    ),
    ('turned', {}, 'no test or validation split with obj'),
    ('tiny_voc', {'train_split': 'trian'}, "no split 'trian'"),
    ('tiny_voc', {'image_size': (16,)}, 'image_size: expected 2 entries'),
    ('missing', {}, "TFDS has no data set 'missing'"),
  ],
)
def test_data_that_do_not_fit_are_refused(name, options, words, boxes_dir):
  with pytest.raises(UsageError, match=words) as error:
    load(boxes_dir, name, **options)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'box, words',
  [((0.5, 0, 0.4, 1), 'ymin <= ymax'), ((0, 0, 1, 2), r'\[0, 1\]')],
)
def test_boxes_that_do_not_fit_are_refused(box, words):
  keys = module._Keys('image', 'objects', 'bbox', 'label', '', ('cat',))
  file = io.BytesIO()
  PIL.Image.new('RGB', (4, 4)).save(file, 'PNG')
  image = file.getvalue()
  entries = {'bbox': np.array([box]), 'label': np.array([0])}
  with pytest.raises(UsageError, match=f'example 3: .*{words}'):
    module._row({'image': image, 'objects': entries}, keys, 3, 'example 3')


@pytest.mark.parametrize('size', [(4, 6), (4, 4)])
def test_images_that_are_turned_within_their_size_are_refused(size):
  exif = PIL.Image.Exif()
  exif[0x0112] = 3  # by 180 degrees
  file = io.BytesIO()
  PIL.Image.new('RGB', size).save(file, 'JPEG', exif=exif)
  with pytest.raises(UsageError, match=r'x: expected an image .* upright'):
    module._size(file.getvalue(), 'x')
