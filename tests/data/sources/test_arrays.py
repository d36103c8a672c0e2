"""Splits and channel statistics of data sets from arrays."""

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import arrays, parts

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (50, 4, 3, 2), dtype=np.uint8)
TRAIN_LABEL = np.arange(50, dtype=np.int64) % 5
TEST = RNG.integers(0, 256, (20, 4, 3, 2), dtype=np.uint8)
TEST_LABEL = np.arange(20, dtype=np.int64) % 5


def make(**options):
  return arrays.from_arrays(TRAIN, TRAIN_LABEL, TEST, TEST_LABEL, **options)


def test_validation_is_taken_from_training_and_nothing_is_lost():
  splits = make(validation=0.2).splits
  train, validation = splits['train']['index'], splits['validation']['index']
  assert len(validation) == 10
  assert sorted([*train, *validation]) == list(range(50))


def test_validation_above_1_is_a_number_of_examples():
  assert len(make(validation=7).splits['validation']['label']) == 7
  with pytest.raises(UsageError, match=r'a fraction in \[0, 1\] or .*got 7\.0'):
    make(validation=7.0)


def test_without_validation_the_training_set_is_complete():
  splits = make(validation=0).splits
  assert set(splits) == {'train', 'test'}
  np.testing.assert_array_equal(splits['train']['image'], TRAIN)


def test_the_split_depends_only_on_the_seed():
  first, again, other = (
    make(split_seed=seed).splits['validation']['index'] for seed in (3, 3, 4)
  )
  np.testing.assert_array_equal(first, again)
  assert set(first) != set(other)


def test_the_test_split_does_not_depend_on_the_seed():
  for seed in (0, 1):
    test = make(split_seed=seed, train_subset=9).splits['test']
    np.testing.assert_array_equal(test['image'], TEST)
    np.testing.assert_array_equal(test['label'], TEST_LABEL)
    np.testing.assert_array_equal(test['index'], np.arange(20))


@pytest.mark.parametrize('split', ['train', 'validation', 'train_subset'])
def test_the_index_is_the_position_in_the_original_training_set(split):
  part = make(train_subset=9).splits[split]
  np.testing.assert_array_equal(part['image'], TRAIN[part['index']])
  np.testing.assert_array_equal(part['label'], TRAIN_LABEL[part['index']])
  assert part['label'].dtype == part['index'].dtype == np.int32


def test_the_train_subset_is_a_part_of_training_and_not_of_validation():
  splits = make(train_subset=9).splits
  train_subset = splits['train_subset']['index']
  assert len(train_subset) == len(set(train_subset)) == 9
  assert set(train_subset) <= set(splits['train']['index'])
  assert len(splits['train']['index']) == 45


def test_a_smaller_subset_is_a_part_of_a_larger_one_of_the_same_seed():
  smaller, larger = (
    set(make(train_subset=n).splits['train_subset']['index']) for n in (4, 9)
  )
  assert smaller < larger


def test_statistics_are_those_of_the_training_images():
  dataset = make(validation=0.4)
  image = dataset.splits['train']['image'].astype(np.float64)
  np.testing.assert_allclose(dataset.mean, image.mean((0, 1, 2)))
  np.testing.assert_allclose(dataset.std, image.std((0, 1, 2)))


def test_statistics_can_be_chosen():
  dataset = make(mean=(1, 2), std=(3.5, 4.5))
  assert dataset.mean == (1.0, 2.0)
  assert dataset.std == (3.5, 4.5)


def test_a_channel_without_contrast_has_a_finite_inverse_std():
  dataset = arrays.from_arrays(0 * TRAIN, TRAIN_LABEL, TEST, TEST_LABEL)
  assert min(dataset.std) > 0


def test_classes_are_counted_from_the_labels_of_both_splits():
  assert make().num_classes == 5
  assert make(num_classes=9).num_classes == 9
  test_label = TEST_LABEL.copy()
  test_label[0] = 6
  with pytest.raises(UsageError, match='none of 2 of the 7 classes: 5, 6'):
    arrays.from_arrays(TRAIN, TRAIN_LABEL, TEST, test_label)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'validation': 50}, r'validation: expected fewer than the 50 .* got 50'),
    ({'validation': 1.0}, r'validation: .* got 1\.0'),
    ({'validation': -0.1}, r'validation: .* at least 0, got -0\.1'),
    ({'train_subset': 0}, r'train_subset: .* of at least 1, got 0'),
    ({'train_subset': 46}, r'train_subset: expected at most 45, .* got 46'),
    ({'num_classes': 4}, 'labels: .* from 0 to 3, got 0 to 4'),
    ({'split_seed': -1}, 'split_seed: .* got -1'),
  ],
)
def test_sizes_that_the_data_does_not_have_are_rejected(options, message):
  with pytest.raises(UsageError, match=message):
    make(**options)


def test_negative_labels_are_rejected():
  with pytest.raises(UsageError, match=r'labels: .* from 0 to .*, got -1 to 3'):
    arrays.from_arrays(TRAIN, TRAIN_LABEL - 1, TEST, TEST_LABEL)


def test_test_images_of_another_size_are_rejected():
  with pytest.raises(UsageError, match=r'\(4, 3, 2\).*\(4, 3, 1\)'):
    arrays.from_arrays(TRAIN, TRAIN_LABEL, TEST[..., :1], TEST_LABEL)


def test_an_empty_split_is_rejected():
  with pytest.raises(
    UsageError, match='training and test examples, got 50 and 0'
  ):
    arrays.from_arrays(TRAIN, TRAIN_LABEL, TEST[:0], TEST_LABEL[:0])


def test_parts_of_a_split_have_nothing_in_common_and_are_complete():
  split = make(train_subset=9).splits['train_subset']
  first, second = (parts.part(split, p) for p in ((0.0, 0.7), (0.7, 1.0)))
  assert (len(first['label']), len(second['label'])) == (6, 3)
  together = {*first['index'].tolist(), *second['index'].tolist()}
  assert together == set(split['index'].tolist())
  assert set(first['index']) != set(split['index'][:6])  # it is shuffled
  again = parts.part(split, (0.0, 0.7))
  np.testing.assert_array_equal(first['image'], again['image'])


def test_the_part_from_0_to_1_is_the_split_itself():
  split = make().splits['train']
  assert parts.part(split, (0.0, 1.0)) is split


@pytest.mark.parametrize(
  ('image', 'label', 'message'),
  [
    (np.zeros((4, 2, 2, 1), np.float32), np.arange(4) % 2, 'expected uint8'),
    (np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2, r'\[N, H, W, C\], got'),
    (
      np.zeros((4, 2, 2, 1), np.uint8),
      np.arange(3) % 2,
      'train_label: expected one label for each of 4 images, got 3',
    ),
    (
      np.zeros((4, 2, 2, 1), np.uint8),
      np.zeros(4, np.float32),
      r'train_label: expected integers \[N\], got float32',
    ),
  ],
)
def test_arrays_that_are_not_images_and_labels_are_refused(
  image, label, message
):
  test = np.zeros((4, 2, 2, 1), np.uint8), np.arange(4) % 2
  with pytest.raises(UsageError, match=message):
    arrays.from_arrays(image, label, *test, validation=0)
