"""Data sets of image files."""

import numpy as np
import PIL.Image
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import folder, images

RNG = np.random.default_rng(0)


def written(root, *, size=(5, 4), **counts):
  """Writes `counts[name]` images of each class; returns {class: images}."""
  by_class = {}
  for name, count in counts.items():
    (root / name).mkdir(parents=True)
    by_class[name] = RNG.integers(0, 256, (count, *size, 3), np.uint8)
    for i, image in enumerate(by_class[name]):
      PIL.Image.fromarray(image).save(root / name / f'{i:03d}.png')
  return by_class


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
  train = written(tmp_path / 'train', bee=3, ant=4)
  test = written(tmp_path / 'test', ant=2, bee=1)
  dataset = folder.folder(str(tmp_path), validation=0)
  assert dataset.label_names == ('ant', 'bee')
  for name, by_class in (('train', train), ('test', test)):
    split = dataset.splits[name]
    expected = np.concatenate([by_class['ant'], by_class['bee']])
    np.testing.assert_array_equal(split['image'], expected)
    counts = [len(by_class['ant']), len(by_class['bee'])]
    np.testing.assert_array_equal(split['label'], np.repeat([0, 1], counts))


@pytest.mark.parametrize('name', ['val', 'validation'])
def test_the_test_folder_may_have_other_names(name, tmp_path):
  written(tmp_path / 'train', ant=3, bee=3)
  written(tmp_path / name, ant=2, bee=1)
  dataset = folder.folder(str(tmp_path))
  assert len(dataset.splits['test']['label']) == 3


def test_splits_can_have_any_name(tmp_path):
  written(tmp_path / 'a', ant=3, bee=3)
  written(tmp_path / 'b', ant=2, bee=1)
  dataset = folder.folder(str(tmp_path), train_split='b', test_split='a')
  assert len(dataset.splits['test']['label']) == 6


def test_without_split_folders_a_share_of_each_class_is_the_test_split(
  tmp_path,
):
  by_class = written(tmp_path, ant=10, bee=5)
  first, other = (
    folder.folder(str(tmp_path), validation=0, split_seed=seed)
    for seed in (0, 1)
  )
  test = first.splits['test']
  assert np.bincount(test['label']).tolist() == [2, 1]
  np.testing.assert_array_equal(test['image'], other.splits['test']['image'])
  both = np.concatenate([first.splits['train']['image'], test['image']])
  every = np.concatenate(list(by_class.values()))
  assert sorted(x.tobytes() for x in both) == sorted(x.tobytes() for x in every)
  half = folder.folder(str(tmp_path), test=0.4).splits['test']
  assert np.bincount(half['label']).tolist() == [4, 2]


def test_the_streamed_data_set_equals_the_one_in_memory(tmp_path):
  written(tmp_path, ant=10, bee=5)
  memory, lazy = (
    folder.folder(str(tmp_path), stream=stream, train_subset=3)
    for stream in (None, True)
  )
  assert lazy._replace(splits={}) == memory._replace(splits={})
  for name, split in memory.splits.items():
    assert isinstance(lazy.splits[name]['image'], images.LazyImages)
    for key, column in split.items():
      np.testing.assert_array_equal(lazy.splits[name][key][:], column)


def test_images_may_be_in_nested_folders_and_beside_other_files(tmp_path):
  written(tmp_path / 'ant', images=4)
  written(tmp_path, bee=4)
  (tmp_path / 'bee' / 'notes.txt').write_text('text')
  (tmp_path / 'bee' / '.hidden.png').write_text('text')
  (tmp_path / '.cache').mkdir()
  dataset = folder.folder(str(tmp_path), test=0.25, validation=0)
  assert dataset.label_names == ('ant', 'bee')
  assert len(dataset.splits['train']['label']) == 6


def test_a_class_may_be_called_train(tmp_path):
  written(tmp_path, bus=5, train=5)
  assert folder.folder(str(tmp_path)).label_names == ('bus', 'train')


def test_images_that_differ_in_size_become_squares(tmp_path):
  written(tmp_path / 'train', ant=3, bee=3)
  written(tmp_path / 'test', size=(9, 7), ant=2, bee=1)
  with pytest.raises(
    UsageError, match=r'data\.image_size: needed .*differ in size'
  ):
    folder.folder(str(tmp_path))
  dataset = folder.folder(str(tmp_path), image_size=4)
  assert dataset.splits['test']['image'].shape == (3, 4, 4, 3)


def two_classes(root):
  written(root, ant=4, bee=4)


def with_a_broken_file(root):
  two_classes(root)
  for name in ('001.png', '003.png'):
    (root / 'bee' / name).write_bytes(b'text')


def with_a_truncated_file(root):
  two_classes(root)
  path = root / 'ant' / '002.png'
  path.write_bytes(path.read_bytes()[:-40])


def without_a_class_in_test(root):
  written(root / 'train', ant=3, bee=3)
  written(root / 'test', ant=3)


def without_test(root):
  written(root / 'train', ant=3, bee=3)
  (root / 'test').mkdir()


def with_an_empty_class(root):
  two_classes(root)
  (root / 'cat').mkdir()


@pytest.mark.parametrize(
  ('write', 'options', 'message'),
  [
    (with_a_broken_file, {}, r'2 of 8 files cannot .*bee/001\.png'),
    (with_a_truncated_file, {'test': 0.5}, r'1 of 4 images .*ant/002\.png'),
    (
      lambda root: written(root, ant=3),
      {},
      "at least two classes .* got only 'ant'",
    ),
    (lambda root: None, {}, 'no images in .* one folder per class'),
    (with_an_empty_class, {}, r"no images in '.*cat'; .* remove this"),
    (without_a_class_in_test, {}, r"'bee' is only in '.*train'"),
    (without_test, {}, r'data\.test_split: .* has no folder test, val,'),
    (two_classes, {'num_classes': 3}, r'num_classes: expected 2, .* got 3'),
    (two_classes, {'test': 1.5}, r'data\.test: .* got 1\.5'),
    (two_classes, {'image_size': -1}, r'image_size: .* got -1'),
  ],
)
def test_wrong_data_and_options_are_rejected_in_one_line(
  write, options, message, tmp_path
):
  write(tmp_path)
  with pytest.raises(UsageError, match=message) as caught:
    folder.folder(str(tmp_path), **options)
  assert '\n' not in str(caught.value)


def test_a_missing_folder_is_rejected(tmp_path):
  with pytest.raises(UsageError, match='no folder'):
    folder.folder(str(tmp_path / 'nowhere'))
