"""Data sets of TFDS, which are read without TensorFlow."""

import json
import shutil
import sys

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import images, tfds


def load(data_dir, dataset='tiny', **options):
  return tfds.tfds(dataset, data_dir=str(data_dir), **options)


def test_splits_and_classes_are_those_of_the_data_set(data_dir):
  dataset = load(data_dir, validation=0)
  shapes = {k: v['image'].shape for k, v in dataset.splits.items()}
  assert shapes == {'train': (40, 6, 5, 3), 'test': (12, 6, 5, 3)}
  assert dataset.num_classes == 3
  assert dataset.label_names == ('ant', 'bee', 'cat')
  assert dataset.splits['train']['image'].dtype == np.uint8
  counts = np.bincount(dataset.splits['train']['label'])
  assert counts.tolist() == [14, 13, 13]


def test_images_and_labels_equal_those_that_tfds_reads(data_dir):
  import tensorflow_datasets

  split = load(data_dir).splits['test']
  builder = tensorflow_datasets.builder('tiny', data_dir=data_dir)
  source = builder.as_data_source('test')
  for i, example in enumerate(source):
    np.testing.assert_array_equal(split['image'][i], example['image'])
    assert split['label'][i] == example['label']


def test_the_streamed_data_set_equals_the_one_in_memory(data_dir):
  options = {'train_subset': 5, 'split_seed': 2}
  memory = load(data_dir, stream=False, **options)
  lazy = load(data_dir, stream=True, **options)
  assert lazy._replace(splits={}) == memory._replace(splits={})
  assert set(lazy.splits) == {'train', 'validation', 'train_subset', 'test'}
  for name, split in memory.splits.items():
    assert isinstance(lazy.splits[name]['image'], images.LazyImages)
    for key, column in split.items():
      np.testing.assert_array_equal(lazy.splits[name][key][:], column)


def test_images_that_are_too_large_for_memory_are_streamed(
  data_dir, monkeypatch
):
  size = 52 * 6 * 5 * 3
  for limit, lazy in ((size, False), (size - 1, True)):
    monkeypatch.setattr(images, 'LARGE', limit)
    column = load(data_dir).splits['train']['image']
    assert isinstance(column, images.LazyImages) == lazy


def test_grey_images_keep_one_channel_and_validation_replaces_test(data_dir):
  dataset = load(data_dir, 'grey')
  assert dataset.splits['test']['image'].shape == (8, 4, 4, 1)
  assert len(dataset.mean) == 1


def test_any_split_or_part_of_one_can_be_chosen(data_dir):
  dataset = load(
    data_dir, train_split='train[:50%]+validation', test_split='test[2:]'
  )
  sizes = {k: len(v['label']) for k, v in dataset.splits.items()}
  assert sizes == {'train': 25, 'validation': 3, 'test': 10}


def test_images_of_several_sizes_become_squares(data_dir):
  for stream in (False, True):
    dataset = load(data_dir, 'sizes', image_size=4, stream=stream)
    assert dataset.splits['test']['image'].shape == (6, 4, 4, 3)
    assert dataset.splits['train']['image'][:].std() > 0


def test_statistics_can_be_chosen(data_dir):
  dataset = load(data_dir, mean=(1, 2, 3), std=(4, 5, 6))
  assert dataset.mean == (1, 2, 3)
  assert dataset.std == (4, 5, 6)


@pytest.mark.parametrize(
  ('dataset', 'options', 'message'),
  [
    ('mnist', {}, r'tfds build mnist --file_format=array_record --data_dir='),
    ('cifar10', {}, r'python -m jaxdistill\.data\.prepare cifar10 --data_dir='),
    ('no_such_set', {}, r"no data set 'no_such_set', and .* has none either"),
    ('cifar10:1.1.1', {}, 'cannot be loaded at version 1.1.1'),
    ('text', {}, 'one feature ClassLabel .* got 0 among image, text'),
    ('sizes', {}, 'data.image_size: needed .* differ in size'),
    ('secret', {}, 'no test or validation split with labels'),
    (
      'tiny',
      {'test_split': 'val'},
      r"no split 'val' \(valid: train, validation",
    ),
    ('tiny', {'num_classes': 4}, "num_classes: expected 3, as 'tiny' .* got 4"),
    ('tiny', {'image_size': 0}, 'image_size: .* at least 1, got 0'),
    ('tiny', {'mean': (1, 2)}, 'mean: expected 3 entries, .* channels, got 2'),
    ('tiny', {'std': (1, 2, 0)}, 'std: expected a number above 0, got 0'),
  ],
)
def test_wrong_data_sets_and_options_are_rejected_in_one_line(
  dataset, options, message, data_dir
):
  with pytest.raises(UsageError, match=message) as caught:
    load(data_dir, dataset, **options)
  assert '\n' not in str(caught.value)


def test_a_format_without_random_access_is_rejected(data_dir, tmp_path):
  shutil.copytree(data_dir / 'tiny', tmp_path / 'tiny')
  path = tmp_path / 'tiny' / '1.0.0' / 'dataset_info.json'
  info = json.loads(path.read_text())
  path.write_text(json.dumps({**info, 'fileFormat': 'tfrecord'}))
  with pytest.raises(
    UsageError, match='convert_format --out_file_format=array_record --dataset'
  ):
    load(tmp_path)


def test_a_missing_data_set_is_reported_only_by_the_error(data_dir, capfd):
  with pytest.raises(UsageError):
    load(data_dir, 'mnist')
  assert capfd.readouterr().err == ''


def test_tensorflow_is_never_imported(data_dir):
  load(data_dir)
  assert 'tensorflow' not in sys.modules
