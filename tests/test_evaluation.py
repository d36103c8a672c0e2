"""Metrics and predictions on a split, whatever the batches."""

import jax
import numpy as np
import pytest

from jaxdistill import evaluation
from jaxdistill.data import augment
from jaxdistill.networks import staged
from jaxdistill.tasks import classification

TASK = classification.classification()


@pytest.fixture(scope='module')
def setting(student, dataset):
  preprocess = augment.standardize(dataset.mean, dataset.std)
  return student, dataset.splits['test'], TASK, preprocess


@pytest.fixture(scope='module')
def logits(setting):
  """Of all 14 test images at once."""
  model, split, _, preprocess = setting
  batch = preprocess(jax.random.key(0), dict(split))
  return np.asarray(staged.apply(*model, batch['image']))


def test_metrics_are_those_of_the_whole_split_in_one_batch(setting, logits):
  found = evaluation.evaluate(*setting)
  batch = {'label': np.asarray(setting[1]['label'])}
  rows = jax.device_get(TASK.statistics(jax.numpy.asarray(logits), batch))
  expected = TASK.summarize(rows)
  assert set(found) == {'loss', 'top1', 'top5'}
  assert 0 < found['top1'] < 1
  for key, value in expected.items():
    assert found[key] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize('batch_size', [1, 4, 7])
def test_batches_that_do_not_divide_the_split_count_no_example_twice(
  setting, logits, batch_size
):
  whole = evaluation.evaluate(*setting)
  parts = evaluation.evaluate(*setting, batch_size=batch_size)
  assert parts == pytest.approx(whole, rel=1e-5)
  predictions = evaluation.predict(*setting, batch_size=batch_size)
  np.testing.assert_array_equal(predictions, logits.argmax(-1))


class Column:
  """Remembers how many rows are taken at a time."""

  def __init__(self, array):
    self.array, self.shape, self.taken = array, array.shape, []

  def __len__(self):
    return len(self.array)

  def __getitem__(self, rows):
    self.taken.append(len(rows))
    return self.array[rows]


def test_large_images_are_evaluated_few_at_a_time(setting, logits, monkeypatch):
  model, split, *rest = setting
  predictions = []
  for size, taken in ((3, [3] * 5), (1000, [14])):
    # Of 8 x 8 values in float32; half an image more is none.
    monkeypatch.setattr(evaluation, 'BYTES', size * 8 * 8 * 4 + 128)
    column = Column(split['image'])
    found = evaluation.predict(model, {**split, 'image': column}, *rest)
    assert column.taken == taken
    predictions.append(found)
  np.testing.assert_array_equal(*predictions)


def test_predictions_stand_in_the_order_of_the_split(setting, logits):
  model, split, task, preprocess = setting
  backwards = {k: v[::-1] for k, v in split.items()}
  found = evaluation.predict(model, backwards, task, preprocess, batch_size=4)
  assert found.shape == (14,)
  np.testing.assert_array_equal(found[::-1], logits.argmax(-1))


def test_a_model_is_evaluated_in_inference_mode(setting):
  """Each image's prediction does not depend on the others of its batch."""
  model, split, task, preprocess = setting
  alone = {k: v[3:4] for k, v in split.items()}
  found = evaluation.predict(model, alone, task, preprocess)
  assert found == evaluation.predict(*setting)[3]


def test_agreement_is_the_share_of_equal_predictions(setting, teacher):
  _, *rest = setting
  ours = evaluation.predict(*setting)
  theirs = evaluation.predict(teacher, *rest)
  agreement = TASK.agreement(ours, theirs)
  assert agreement == np.mean([a == b for a, b in zip(ours, theirs)])
  assert TASK.agreement(ours, ours) == 1
