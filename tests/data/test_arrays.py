"""Splits and channel statistics."""

import numpy as np
import pytest

from jaxdistill.data import arrays
from jaxdistill.types import UsageError

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (50, 4, 3, 2), dtype=np.uint8)
TRAIN_LABEL = np.arange(50, dtype=np.int64) % 5
TEST = RNG.integers(0, 256, (20, 4, 3, 2), dtype=np.uint8)
TEST_LABEL = np.arange(20, dtype=np.int64) % 5


def made(**options):
  return arrays.from_arrays(TRAIN, TRAIN_LABEL, TEST, TEST_LABEL, **options)


def test_validation_is_cut_from_training_and_nothing_is_lost():
  splits = made(validation=0.2).splits
  train, validation = splits['train']['index'], splits['validation']['index']
  assert len(validation) == 10
  assert sorted([*train, *validation]) == list(range(50))


def test_validation_above_1_is_a_number_of_examples():
  assert len(made(validation=7).splits['validation']['label']) == 7
  with pytest.raises(UsageError, match=r'7\.0; wanted: a share'):
    made(validation=7.0)


def test_no_validation_leaves_training_whole_and_has_no_split():
  splits = made(validation=0).splits
  assert set(splits) == {'train', 'test'}
  np.testing.assert_array_equal(splits['train']['image'], TRAIN)


def test_the_seed_alone_chooses_the_split():
  first, again, other = (
    made(split_seed=seed).splits['validation']['index'] for seed in (3, 3, 4)
  )
  np.testing.assert_array_equal(first, again)
  assert set(first) != set(other)


def test_the_test_split_is_untouched_whatever_the_seed():
  for seed in (0, 1):
    test = made(split_seed=seed, few=9).splits['test']
    np.testing.assert_array_equal(test['image'], TEST)
    np.testing.assert_array_equal(test['label'], TEST_LABEL)
    np.testing.assert_array_equal(test['index'], np.arange(20))


@pytest.mark.parametrize('split', ['train', 'validation', 'few'])
def test_the_index_is_the_place_in_the_original_training_set(split):
  part = made(few=9).splits[split]
  np.testing.assert_array_equal(part['image'], TRAIN[part['index']])
  np.testing.assert_array_equal(part['label'], TRAIN_LABEL[part['index']])
  assert part['label'].dtype == part['index'].dtype == np.int32


def test_few_examples_are_a_part_of_training_and_not_of_validation():
  splits = made(few=9).splits
  few = splits['few']['index']
  assert len(few) == len(set(few)) == 9
  assert set(few) <= set(splits['train']['index'])
  assert len(splits['train']['index']) == 45


def test_fewer_examples_are_among_more_of_the_same_seed():
  four, nine = (set(made(few=n).splits['few']['index']) for n in (4, 9))
  assert four < nine


def test_statistics_are_those_of_the_images_trained_on():
  dataset = made(validation=0.4)
  image = dataset.splits['train']['image'].astype(np.float64)
  np.testing.assert_allclose(dataset.mean, image.mean((0, 1, 2)))
  np.testing.assert_allclose(dataset.std, image.std((0, 1, 2)))


def test_given_statistics_are_kept():
  dataset = made(mean=(1, 2), std=(3.5, 4.5))
  assert dataset.mean == (1.0, 2.0)
  assert dataset.std == (3.5, 4.5)


def test_a_channel_without_contrast_has_a_finite_inverse_std():
  dataset = arrays.from_arrays(0 * TRAIN, TRAIN_LABEL, TEST, TEST_LABEL)
  assert min(dataset.std) > 0


def test_classes_are_counted_from_the_labels_of_both_splits():
  more = TEST_LABEL.copy()
  more[0] = 6
  dataset = arrays.from_arrays(TRAIN, TRAIN_LABEL, TEST, more)
  assert dataset.num_classes == 7
  assert made(num_classes=9).num_classes == 9


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'validation': 50}, r'validation is 50; the training set has 50'),
    ({'validation': 1.0}, r'validation is 1\.0'),
    ({'validation': -0.1}, r'validation is -0\.1'),
    ({'few': 0}, r'few is 0; wanted: 1 or more'),
    ({'few': 46}, r'few is 46; there are 45'),
    ({'num_classes': 4}, 'labels are 0 to 4; wanted: 0 to 3'),
    ({'split_seed': -1}, 'split_seed: -1'),
  ],
)
def test_what_the_data_cannot_give_is_refused(options, message):
  with pytest.raises(UsageError, match=message):
    made(**options)


def test_negative_labels_are_refused():
  with pytest.raises(UsageError, match='labels are -1 to 3; wanted: 0 to'):
    arrays.from_arrays(TRAIN, TRAIN_LABEL - 1, TEST, TEST_LABEL)


def test_test_images_of_another_size_are_refused():
  with pytest.raises(UsageError, match=r'\(4, 3, 2\).*\(4, 3, 1\)'):
    arrays.from_arrays(TRAIN, TRAIN_LABEL, TEST[..., :1], TEST_LABEL)


def test_an_empty_split_is_refused():
  with pytest.raises(UsageError, match='50 training and 0 test examples'):
    arrays.from_arrays(TRAIN, TRAIN_LABEL, TEST[:0], TEST_LABEL[:0])


def test_parts_of_a_split_have_nothing_in_common_and_miss_nothing():
  split = made(few=9).splits['few']
  first, second = (arrays.part(split, p) for p in ((0.0, 0.7), (0.7, 1.0)))
  assert (len(first['label']), len(second['label'])) == (6, 3)
  together = {*first['index'].tolist(), *second['index'].tolist()}
  assert together == set(split['index'].tolist())
  assert set(first['index']) != set(split['index'][:6])  # an order of chance
  again = arrays.part(split, (0.0, 0.7))
  np.testing.assert_array_equal(first['image'], again['image'])


def test_the_whole_of_a_split_is_the_split():
  split = made().splits['train']
  assert arrays.part(split, (0.0, 1.0)) is split
