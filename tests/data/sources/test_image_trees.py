"""Data sets of any tree of image files, with and without labels."""

import logging

import numpy as np
import PIL.Image
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import image_trees, images

RNG = np.random.default_rng(0)


def written(folder, count, first=0):
  """Writes images of 5 x 4 pixels, whose first level is their number."""
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(first, first + count):
    image = RNG.integers(0, 256, (5, 4, 3), np.uint8)
    image[0, 0] = i
    PIL.Image.fromarray(image).save(folder / f'{i:03d}.png')


def numbers(dataset, split):
  """The numbers of the images of a split."""
  return dataset.splits[split]['image'][:][:, 0, 0, 0].tolist()


def test_folders_with_images_are_classes(tmp_path):
  written(tmp_path / 'ant' / 'deep', 6)
  written(tmp_path / 'bee', 4, 6)
  dataset = image_trees.images(str(tmp_path), test=0.5, validation=0)
  assert dataset.label_names == ('ant', 'bee')
  assert np.bincount(dataset.splits['test']['label']).tolist() == [3, 2]
  every = numbers(dataset, 'train') + numbers(dataset, 'test')
  assert sorted(every) == list(range(10))


@pytest.mark.parametrize('folder', ['', 'train'])
@pytest.mark.parametrize(
  ('maps', 'source'), [('masks', 'mask_folder'), ('depths', 'depth_folder')]
)
def test_masks_and_depths_are_not_taken_for_a_class(
  folder, maps, source, tmp_path
):
  for name in ('images', maps):
    written(tmp_path / folder / name, 4)
  with pytest.raises(
    UsageError, match=f"'images' and {maps!r} in .* {source!r} reads"
  ):
    image_trees.images(str(tmp_path))
  classes = image_trees.images(str(tmp_path), labels='folders', validation=0)
  assert {*classes.label_names} == {'images', maps}


@pytest.mark.parametrize('beside', ['', 'a/b', 'only'])
def test_images_in_other_folders_have_no_labels(beside, tmp_path):
  written(tmp_path / beside, 4)
  if beside != 'only':
    written(tmp_path, 1, 4)
  dataset = image_trees.images(str(tmp_path), validation=0)
  assert dataset.num_classes == 0 and dataset.label_names == ()
  assert all('label' not in split for split in dataset.splits.values())
  count = len(numbers(dataset, 'train')) + len(numbers(dataset, 'test'))
  assert count == 4 + (beside != 'only')


@pytest.mark.parametrize('test_folder', ['test', 'val', 'Test Set'])
def test_unlabelled_images_may_have_folders_of_splits(test_folder, tmp_path):
  written(tmp_path / 'train', 6)
  written(tmp_path / test_folder, 3, 6)
  dataset = image_trees.images(str(tmp_path), num_classes=2, validation=0)
  assert numbers(dataset, 'train') == [0, 1, 2, 3, 4, 5]
  assert numbers(dataset, 'test') == [6, 7, 8]


def test_a_folder_of_training_images_alone_gives_the_test_split_too(tmp_path):
  written(tmp_path / 'train' / 'ant', 5)
  written(tmp_path / 'train' / 'bee', 5, 5)
  dataset = image_trees.images(str(tmp_path), validation=0)
  assert dataset.label_names == ('ant', 'bee')
  assert np.bincount(dataset.splits['test']['label']).tolist() == [1, 1]


def test_folders_are_not_classes_if_the_labels_are_not_wanted(tmp_path):
  written(tmp_path / '2024', 5)
  written(tmp_path / '2025', 5, 5)
  dataset = image_trees.images(
    str(tmp_path), labels='none', num_classes=3, validation=0
  )
  assert dataset.label_names == ()


@pytest.mark.parametrize(
  ('name', 'lines'),
  [
    ('labels.csv', ['file,class', '000.png,dog', 'x/001.png,cat', '002,dog']),
    ('labels.tsv', ['000.png\tdog', './x/001.png\tcat\tmore', '002\tdog']),
    ('labels.txt', ['000.png dog', '', 'x/001 cat', '002.png dog']),
  ],
)
def test_a_file_gives_the_labels_of_the_images_that_it_names(
  name, lines, tmp_path
):
  written(tmp_path, 1)
  written(tmp_path / 'x', 1, 1)
  written(tmp_path, 2, 2)  # 003.png has no label
  (tmp_path / name).write_text('\n'.join(lines))
  train, test = image_trees.read_splits(str(tmp_path), name, 0.4)
  assert train.names == ('cat', 'dog')
  paths = [path[-7:] for path in (*train.paths, *test.paths)]
  labels = [*train.label, *test.label]
  assert dict(zip(paths, labels)) == {'000.png': 1, '001.png': 0, '002.png': 1}


def test_labels_that_are_numbers_are_ordered_as_numbers(tmp_path):
  written(tmp_path, 3)
  (tmp_path / 'l.csv').write_text('000.png,10\n001.png,2\n002.png,1\n')
  train, _ = image_trees.read_splits(
    str(tmp_path), str(tmp_path / 'l.csv'), 0.1
  )
  assert train.names == ('1', '2', '10')


@pytest.mark.parametrize(
  ('text', 'parts'),
  [
    ('000.png,a\n009.png,b\n', ['line 2', "'009.png'"]),
    ('000.png,a\n001.png\n', ['line 2', 'an image and its class']),
    ('000.png,a\n001.png,a\n', ['two classes', 'got 1']),
    ('000.png,a\n001.png,b\n000.png,b\n', ['line 3', "'a'", "'b'"]),
    (None, ['data.labels', "'none'", "'l.csv'"]),
  ],
)
def test_a_wrong_file_of_labels_is_refused(text, parts, tmp_path):
  written(tmp_path, 3)
  if text is not None:
    (tmp_path / 'l.csv').write_text(text)
  with pytest.raises(UsageError) as error:
    image_trees.images(str(tmp_path), labels='l.csv')
  for part in parts:
    assert part in str(error.value)


@pytest.mark.parametrize('stream', [False, True])
def test_a_few_unreadable_files_are_named_and_skipped(stream, tmp_path, caplog):
  written(tmp_path, 9)
  (tmp_path / 'text.png').write_text('not an image')
  (tmp_path / 'gone.png').symlink_to(tmp_path / 'nowhere')
  with caplog.at_level(logging.WARNING, 'absl'):
    dataset = image_trees.images(
      str(tmp_path), num_classes=2, unreadable=0.2, stream=stream, validation=0
    )
  kept = numbers(dataset, 'train') + numbers(dataset, 'test')
  assert sorted(kept) == list(range(9))
  assert 'skipped 2 of 11 files' in caplog.text
  assert 'text.png' in caplog.text and 'gone.png' in caplog.text


def test_an_image_that_is_cut_short_is_skipped_too(tmp_path, caplog):
  written(tmp_path, 9)
  (tmp_path / 'cut.png').write_bytes((tmp_path / '000.png').read_bytes()[:60])
  with caplog.at_level(logging.WARNING, 'absl'):
    dataset = image_trees.images(
      str(tmp_path), num_classes=2, unreadable=0.1, validation=0
    )
  kept = numbers(dataset, 'train') + numbers(dataset, 'test')
  assert sorted(kept) == list(range(9))
  assert 'cut.png' in caplog.text


def test_too_many_unreadable_files_are_refused(tmp_path):
  written(tmp_path, 9)
  (tmp_path / 'text.png').write_text('not an image')
  with pytest.raises(UsageError, match=r'at most 1 %.* 1 of 10.*text\.png'):
    image_trees.images(str(tmp_path), num_classes=2)


def test_images_of_different_sizes_need_a_size(tmp_path):
  written(tmp_path, 9)
  PIL.Image.new('RGB', (9, 7)).save(tmp_path / 'large.png')
  with pytest.raises(UsageError, match=r'data\.image_size: .*large\.png'):
    image_trees.images(str(tmp_path), num_classes=2)
  dataset = image_trees.images(
    str(tmp_path), num_classes=2, image_size=4, stream=True
  )
  column = dataset.splits['train']['image']
  assert isinstance(column, images.LazyImages)
  assert column[:2].shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
  ('options', 'part'),
  [
    ({'path': 'nowhere'}, "no folder 'nowhere'"),
    ({}, 'no images in'),
    ({'unreadable': 1.5}, 'data.unreadable'),
    ({'test': 1.0}, 'data.test'),
    ({'labels': 'folders'}, 'no images in'),
  ],
)
def test_what_is_no_tree_of_images_is_refused(options, part, tmp_path):
  with pytest.raises(UsageError) as error:
    image_trees.images(**{'path': str(tmp_path), **options})
  assert part in str(error.value)


def test_images_without_labels_can_have_a_number_of_classes(tmp_path):
  written(tmp_path, 3)
  dataset = image_trees.images(str(tmp_path), num_classes=7, validation=0)
  assert dataset.num_classes == 7 and 'label' not in dataset.splits['train']
