"""How classes are numbered, and that every split has its share of each."""

import logging

import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.data.sources import labels


def dataset(counts, **options):
  """Returns a data set with `counts[i]` training examples of class i."""
  label = np.random.default_rng(0).permutation(
    np.repeat(np.arange(len(counts)), counts)
  )
  image = np.zeros((len(label), 2, 2, 1), np.uint8)
  test = np.arange(len(counts))
  options = {'num_classes': len(counts), **options}
  return jd.data.from_arrays(image, label, image[: len(test)], test, **options)


def counts_of(data, split, classes):
  return np.bincount(data.splits[split]['label'], minlength=classes).tolist()


def test_a_small_class_is_in_training_and_validation_for_every_seed():
  """Drawn without regard to classes, it is missing for most seeds."""
  missing = {True: 0, False: 0}
  for seed in range(50):
    for stratified in missing:
      data = dataset([360, 4], split_seed=seed, stratified=stratified)
      count = counts_of(data, 'validation', 2)
      assert sum(count) == 36
      missing[stratified] += count[1] == 0
      if stratified:
        assert counts_of(data, 'train', 2)[1] >= 2
  assert missing[True] == 0 and missing[False] > 25


@pytest.mark.parametrize(
  ('counts', 'validation', 'expected'),
  [
    ([10] * 10, 0.1, [1] * 10),
    ([10] * 10, 0.5, [5] * 10),
    ([100, 50, 10], 16, [10, 5, 1]),
    ([1000, 200, 20, 2], 122, [99, 20, 2, 1]),
    ([30, 1, 1], 8, [8, 0, 0]),
    ([2, 2, 2], 3, [1, 1, 1]),
    ([5, 5], 8, [4, 4]),
    ([5, 5], 9, [5, 4]),
  ],
)
def test_each_class_has_its_share_of_the_validation_split(
  counts, validation, expected
):
  data = dataset(counts, validation=validation)
  got = counts_of(data, 'validation', len(counts))
  assert sum(got) == sum(expected)
  assert np.abs(np.subtract(got, expected)).max() <= 1
  if 1 in expected or 0 in expected:
    assert got == expected


def test_the_subset_has_its_share_of_each_class_too():
  data = dataset([60, 30, 6, 2], train_subset=9, validation=10)
  assert counts_of(data, 'train_subset', 4) == [5, 2, 1, 1]
  index = set(data.splits['train_subset']['index'])
  assert index <= set(data.splits['train']['index'])


def test_a_stratified_split_is_random_and_loses_nothing():
  seeds = [dataset([20, 20], split_seed=seed) for seed in (0, 0, 1)]
  first, again, other = (d.splits['validation']['index'] for d in seeds)
  np.testing.assert_array_equal(first, again)
  assert set(first) != set(other)
  splits = seeds[0].splits
  both = [*splits['train']['index'], *first]
  assert sorted(both) == list(range(40))
  # Each example is drawn about equally often.
  drawn = np.concatenate(
    [
      dataset([20, 20], split_seed=seed).splits['validation']['index']
      for seed in range(300)
    ]
  )
  times = np.bincount(drawn, minlength=40)
  assert times.sum() == 1200 and 12 <= times.min() <= times.max() <= 50


@pytest.mark.parametrize('source', ['digits', 'from_arrays'])
def test_without_stratification_the_split_is_the_one_of_published_results(
  source,
):
  """The first examples of a permutation by the seed, as before."""
  if source == 'digits':
    data, total, size = jd.data.digits(split_seed=3), 1200, 200
  else:
    data = dataset([40, 30], split_seed=3, stratified=False, validation=20)
    total, size = 70, 20
  order = np.random.default_rng(3).permutation(total)
  np.testing.assert_array_equal(
    data.splits['validation']['index'], np.sort(order[:size])
  )


@pytest.mark.parametrize(
  ('values', 'classes', 'names', 'message'),
  [
    ([0, 1, 2], 3, (), ''),
    ([0, 2, 2], 3, (), '1 of the 3 classes: 1'),
    ([1], 3, ('ant', 'bee', 'cat'), "2 of the 3 classes: 'ant', 'cat'"),
    ([3], 12, (), '11 of the 12 classes: 0, 1, 2, 4, 5 and 6 more'),
    ([0], 2**31 - 1, (), '2147483646 of the 2147483647 classes: 1, 2, 3, 4, 5'),
  ],
)
def test_classes_without_examples_are_named(values, classes, names, message):
  text = labels.missing(np.array(values), classes, names)
  assert text.startswith(message) and bool(text) == bool(message)


def test_empty_classes_are_refused_unless_a_number_or_names_say_they_exist():
  image = np.zeros((4, 2, 2, 1), np.uint8)

  def read(label, **options):
    label = np.array(label)
    return jd.data.from_arrays(image, label, image, label, **options)

  for label, message in (
    ([1, 2, 1, 2], '1 of the 3 classes: 0'),
    ([0, 2**30, 0, 2**30], '1, 2, 3, 4, 5 and 1073741818 more'),
  ):
    with pytest.raises(UsageError, match=message):
      read(label)
  assert read([0, 1, 0, 1], label_names=('a', 'b', 'c')).num_classes == 3
  assert read([1, 2, 1, 2], num_classes=3).num_classes == 3
  assert read([0, 1, 0, 1]).num_classes == 2


NAMES = ('ant', 'bee', 'cat')


@pytest.mark.parametrize(
  'values', [[1, 2, 3], [0, 5, 7], [10, 20, 2**40], [2, 3, 4]]
)
def test_labels_are_renumbered_if_each_has_a_name(values, caplog):
  train, test = np.array([*values, *values]), np.array(values[:2])
  with caplog.at_level(logging.WARNING, 'absl'):
    got = labels.renumbered(train, test, None, NAMES)
  assert [x.tolist() for x in got] == [[0, 1, 2, 0, 1, 2], [0, 1]]
  assert 'renumbered from 0' in caplog.text


@pytest.mark.parametrize(
  'values', [[1, 2, 3], [0, 5, 7], [10, 20, 2**40], [2**63]]
)
def test_labels_with_gaps_are_refused_with_the_keys_that_mend_them(values):
  train = np.array(values, np.uint64)
  with pytest.raises(
    UsageError, match=r'every class from 0 .*label_names.*data\.num_classes'
  ):
    labels.renumbered(train, train, None, ())
  got = labels.renumbered(train, train, 2**41, ())
  assert got[0] is train


@pytest.mark.parametrize(
  ('values', 'options', 'message'),
  [
    ([0, 2**40], {'num_classes': None}, r'num_classes: .* to 2147483647'),
    ([0, 1], {'num_classes': 2**41}, r'num_classes: .* to 2147483647'),
    ([0, 1], {'num_classes': 1.5}, r'num_classes: expected a whole number'),
    ([0, 0], {'num_classes': None}, 'at least two classes, got only the la'),
    ([0, 0], {'num_classes': 1}, 'at least two classes, got only the label'),
    ([0, 1], {'label_names': 'ab'}, "one name for each class, got 'ab'"),
    ([0, 1], {'label_names': [['a', 'b']]}, 'one name for each class, got'),
    ([0, 1], {'label_names': ['a']}, r'from 0 to 0, got 0 to 1'),
    (
      [0, 1],
      {'num_classes': 2, 'label_names': ['a', 'b', 'c']},
      'label_names: expected 2 entries, .* classes, got 3',
    ),
  ],
)
def test_numbers_of_classes_that_cannot_be_are_refused(
  values, options, message
):
  image = np.zeros((2, 2, 2, 1), np.uint8)
  label = np.array(values)
  with pytest.raises(UsageError, match=message):
    jd.data.from_arrays(image, label, image, label, validation=0, **options)


@pytest.mark.parametrize(
  'names',
  [('bée', 'c'), ['bée', 'c'], np.array(['bée', 'c']), ['bée'.encode(), b'c']],
)
def test_names_may_be_any_sequence_of_strings_or_bytes(names):
  assert dataset([4, 4], label_names=names).label_names == ('bée', 'c')


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('size', [(5, 5), (32, 32), (9, 6)])
def test_images_with_the_channels_first_are_transposed(channels, size, caplog):
  rng = np.random.default_rng(0)
  last = rng.integers(0, 256, (6, *size, channels), np.uint8)
  label = np.arange(6) % 2
  first = last.transpose(0, 3, 1, 2)
  with caplog.at_level(logging.WARNING, 'absl'):
    data = jd.data.from_arrays(first, label, first, label, validation=0)
  np.testing.assert_array_equal(data.splits['train']['image'], last)
  assert 'transposed to [N, H, W, C]' in caplog.text


@pytest.mark.parametrize('shape', [(3, 32, 3), (3, 3, 3), (1, 8, 1), (3, 4, 4)])
def test_images_that_may_have_few_rows_are_taken_as_documented(shape):
  image, label = np.zeros((4, *shape), np.uint8), np.arange(4) % 2
  data = jd.data.from_arrays(image, label, image, label, validation=0)
  assert data.splits['train']['image'].shape == (4, *shape)
