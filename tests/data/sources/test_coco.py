"""Folders in the format of COCO."""

import copy
import json

import numpy as np
import PIL.Image
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import decoding
from jaxdistill.data.sources.coco import coco

CATEGORIES = [{'id': 7, 'name': 'cat'}, {'id': 90, 'name': 'dog'}]
# Two images, of which the second one is twice as large and higher than wide.
CONTENT = {
  'images': [
    {'id': 139, 'file_name': 'a.png', 'height': 12, 'width': 16},
    {'id': 42, 'file_name': 'b.png', 'height': 32, 'width': 24},
    {'id': 5, 'file_name': 'c.png', 'height': 12, 'width': 16},
  ],
  'categories': CATEGORIES,
  'annotations': [
    {'id': 1, 'image_id': 139, 'category_id': 90, 'bbox': [2, 4, 6, 8]},
    {
      'id': 2,
      'image_id': 42,
      'category_id': 7,
      'bbox': [8, 16, 16, 16.4],  # 0.4 pixels beyond the image
      'iscrowd': 1,
      'area': 99.0,
    },
  ],
}


def write(root, train=CONTENT, test=CONTENT):
  (root / 'annotations').mkdir()
  rng = np.random.default_rng(0)
  for folder, name, content in (
    ('train2017', 'instances_train2017', train),
    ('val2017', 'instances_val2017', test),
  ):
    (root / folder).mkdir()
    for image in CONTENT['images']:
      size = image['height'], image['width'], 3
      pixels = rng.integers(1, 256, size, np.uint8)
      PIL.Image.fromarray(pixels).save(root / folder / image['file_name'])
    file = root / 'annotations' / f'{name}.json'
    file.write_text(json.dumps(content))
  return root


def read(root, **options):
  return coco(str(root), image_size=(16, 16), validation=0, **options)


@pytest.mark.parametrize('stream', [False, True])
def test_images_and_boxes_are_resized_together(stream, tmp_path):
  data = read(write(tmp_path), stream=stream)
  jd.tasks.detection().check(data)
  split = data.splits['test']
  assert data.label_names == ('cat', 'dog')
  np.testing.assert_array_equal(split['image_id'], [139, 42, 5])
  np.testing.assert_allclose(split['scale'], [1, 0.5, 1])
  np.testing.assert_allclose(split['extent'], [[12, 16], [16, 12], [12, 16]])
  np.testing.assert_array_equal(split['classes'], [[1], [0], [-1]])
  np.testing.assert_array_equal(
    split['boxes'][:, 0], [[4, 2, 12, 8], [8, 4, 16, 12], [0, 0, 0, 0]]
  )
  np.testing.assert_array_equal(split['crowd'][:, 0], [False, True, False])
  np.testing.assert_array_equal(split['areas'][:, 0], [48, 99, 0])
  image = split['image'][np.arange(3)]
  first = np.asarray(PIL.Image.open(tmp_path / 'val2017' / 'a.png'))
  np.testing.assert_array_equal(image[0, :12], first)
  assert not image[0, 12:].any()
  assert image[1, :, :12].all() and not image[1, :, 12:].any()


@pytest.mark.parametrize(
  'size, into, expected',
  [
    ((480, 640), (240, 240), ((180, 240), 0.375)),
    ((10, 1000), (100, 100), ((1, 100), 0.1)),
    ((50, 50), (100, 200), ((100, 100), 2.0)),
  ],
)
def test_images_fit_with_the_ratio_of_their_sides(size, into, expected):
  assert decoding.fitted_size(size, into) == expected


def with_image(**entry):
  """Returns the content with another entry of its second image."""
  content = copy.deepcopy(CONTENT)
  content['images'][1] |= entry
  return content


def changed(**entry):
  content = copy.deepcopy(CONTENT)
  content['annotations'][0] |= entry
  return content


def test_categories_of_one_name_are_one_class(tmp_path):
  names = {7: 'cat', 90: 'dog', 0: 'cat'}
  categories = [{'id': i, 'name': name} for i, name in names.items()]
  content = {**changed(category_id=0), 'categories': categories}
  dataset = read(write(tmp_path, train=content))
  assert dataset.label_names == ('cat', 'dog')
  classes = dataset.splits['train']['classes']
  np.testing.assert_array_equal(classes[classes >= 0], [0, 0])


@pytest.mark.parametrize(
  'content, words',
  [
    (changed(bbox=[2, 4, -6, 8]), r'annotation 1: .* sides of at least 0, got'),
    (changed(bbox=[2, 4, 6, 12]), r'inside its image of 16x12, got \[2.0, 4.0'),
    (changed(bbox=[-2, 4, 6, 8]), 'inside its image'),
    (changed(bbox=[2, 4, 6]), 'annotation 1: bbox: expected 4 entries'),
    (changed(bbox=[2, 4, 6, 'x']), "bbox: expected a number, got 'x'"),
    (
      changed(category_id=8),
      'one of the 2 categories, 7 to 90, as category_id, got 8',
    ),
    (changed(image_id=8), 'one of the 3 images, 5 to 139, as image_id, got 8'),
    (changed(area=float('nan')), 'annotation 1: area: expected .*, got nan'),
    (changed(area=-1), 'annotation 1: area: expected .*, got -1'),
    (changed(iscrowd='no'), "annotation 1: iscrowd: expected 0 or 1, got 'no'"),
    (
      with_image(id=139),
      'images: expected one entry for each id, got 139 twice',
    ),
    (
      with_image(id='b'),
      "images: id: expected a whole number from 0 to 2147483647, got 'b'",
    ),
    (with_image(id=2**31), 'images: id: expected'),
    (
      with_image(file_name='./a.png'),
      r"one image named '.*/a\.png', got 2$",
    ),
    (with_image(height=0), 'image 42: height: expected'),
    (
      {**CONTENT, 'categories': [CATEGORIES[0]] * 2},
      'categories: expected one entry for each id, got 7 twice',
    ),
    ({'images': []}, "format of COCO, .* got KeyError: 'categories'"),
    ([], 'expected the format of COCO'),
    ({**CONTENT, 'images': [], 'annotations': []}, 'at least one image'),
    (
      {**CONTENT, 'categories': [], 'annotations': []},
      'at least one category, got none',
    ),
    (
      {**CONTENT, 'images': [{**CONTENT['images'][0], 'file_name': 'x.png'}]},
      'one of the 1 images',
    ),
  ],
)
def test_files_that_are_not_valid_are_refused(content, words, tmp_path):
  with pytest.raises(UsageError, match=words) as error:
    read(write(tmp_path, train=content))
  assert '\n' not in str(error.value)


def test_missing_files_are_named(tmp_path):
  with pytest.raises(UsageError, match=r'no file .*instances_train2017'):
    read(tmp_path)
  (write(tmp_path) / 'val2017' / 'c.png').unlink()
  with pytest.raises(UsageError, match=r'no file .*c\.png.*, which .* names'):
    read(tmp_path)


def test_categories_of_the_test_set_are_recognised_by_their_names(tmp_path):
  swapped = [{'id': 90, 'name': 'cat'}, {'id': 7, 'name': 'dog'}]
  root = write(tmp_path, test={**CONTENT, 'categories': swapped})
  splits = read(root).splits
  np.testing.assert_array_equal(splits['train']['classes'], [[1], [0], [-1]])
  np.testing.assert_array_equal(splits['test']['classes'], [[0], [1], [-1]])


def test_categories_that_only_the_test_set_has_are_refused(tmp_path):
  categories = [*CATEGORIES, {'id': 91, 'name': 'cow'}]
  test = {**CONTENT, 'categories': categories}
  with pytest.raises(UsageError, match="of the training set, got 'cow'"):
    read(write(tmp_path, test=test))


@pytest.mark.parametrize('stream', [False, True])
def test_a_part_of_one_file_may_be_the_test_split(stream, tmp_path):
  root, options = write(tmp_path), {'test_annotations': None, 'stream': stream}
  splits = read(root, test=0.34, **options).splits
  ids = {name: split['image_id'].tolist() for name, split in splits.items()}
  assert (len(ids['train']), len(ids['test'])) == (2, 1)
  assert {*ids['train'], *ids['test']} == {139, 42, 5}
  whole = read(root).splits['train']
  for split in splits.values():
    rows = [whole['image_id'].tolist().index(i) for i in split['image_id']]
    for name in ('image', 'boxes', 'classes', 'scale', 'extent'):
      np.testing.assert_array_equal(split[name][:], whole[name][rows])
  with pytest.raises(UsageError, match=r'data\.test: expected'):
    read(root, test=1.0, **options)


def test_images_of_both_splits_are_refused(tmp_path):
  root = write(tmp_path)
  with pytest.raises(
    UsageError, match=r'training set, got .*a\.png; with data'
  ):
    read(root, test_images='train2017')


def test_sizes_are_those_of_the_decoded_images(tmp_path):
  root = write(tmp_path, train=with_image(height=33))
  with pytest.raises(UsageError, match=r'b\.png: .* 24x33, as .* got 24x32$'):
    read(root)


def test_images_that_exif_turns_need_annotations_of_upright_images(tmp_path):
  root = write(tmp_path)
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  image = PIL.Image.new('RGB', (24, 32))
  image.save(root / 'val2017' / 'b.png', exif=exif)
  with pytest.raises(UsageError, match=r'b\.png: .* upright .* 24x32, .*32x24'):
    read(root)
  (root / 'val2017' / 'b.png').write_bytes(b'no image')
  with pytest.raises(UsageError, match=r'b\.png: '):
    read(root)
