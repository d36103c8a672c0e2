"""Metrics and predictions on a split do not depend on the batches."""

import jax
import numpy as np
import pytest

from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph
from jaxdistill.tasks import classification, evaluation

TASK = classification()


@pytest.fixture(scope='module')
def setting(student, dataset):
  preprocess = augment.standardize(dataset.mean, dataset.std)
  return student, dataset.splits['test'], TASK, preprocess


@pytest.fixture(scope='module')
def logits(setting):
  """Those of all 14 test images, computed at once."""
  model, split, _, preprocess = setting
  batch = preprocess(jax.random.key(0), dict(split))
  return np.asarray(graph.apply(*model, batch['image']))


def test_metrics_equal_those_of_the_whole_split_in_one_batch(setting, logits):
  metrics = evaluation.evaluate(*setting)
  batch = {'label': np.asarray(setting[1]['label'])}
  rows = jax.device_get(TASK.statistics(jax.numpy.asarray(logits), batch))
  expected = TASK.summarize(rows)
  assert set(metrics) == {'loss', 'top1', 'top5'}
  assert 0 < metrics['top1'] < 1
  for key, value in expected.items():
    assert metrics[key] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize('batch_size', [1, 4, 7])
def test_every_example_counts_once_if_batches_do_not_divide_the_split(
  setting, logits, batch_size
):
  whole = evaluation.evaluate(*setting)
  parts = evaluation.evaluate(*setting, batch_size=batch_size)
  assert parts == pytest.approx(whole, rel=1e-5)
  predictions = evaluation.predict(*setting, batch_size=batch_size)
  np.testing.assert_array_equal(predictions, logits.argmax(-1))


class Column:
  """Records how many rows are taken at a time."""

  def __init__(self, array):
    self.array, self.shape, self.taken = array, array.shape, []

  def __len__(self):
    return len(self.array)

  def __getitem__(self, rows):
    self.taken.append(len(rows))
    return self.array[rows]


def test_large_images_are_evaluated_in_smaller_batches(
  setting, logits, monkeypatch
):
  model, split, *rest = setting
  predictions = []
  for size, taken in ((3, [3] * 5), (1000, [14])):
    # Memory for `size` images of 8 x 8 float32 values, and half an image.
    monkeypatch.setattr(evaluation, 'BYTES', size * 8 * 8 * 4 + 128)
    column = Column(split['image'])
    predictions.append(
      evaluation.predict(model, {**split, 'image': column}, *rest)
    )
    assert column.taken == taken
  np.testing.assert_array_equal(*predictions)


def test_predictions_are_in_the_order_of_the_split(setting, logits):
  model, split, task, preprocess = setting
  backwards = {k: v[::-1] for k, v in split.items()}
  predictions = evaluation.predict(
    model, backwards, task, preprocess, batch_size=4
  )
  assert predictions.shape == (14,)
  np.testing.assert_array_equal(predictions[::-1], logits.argmax(-1))


def test_a_model_is_evaluated_in_inference_mode(setting):
  """The prediction of an image does not depend on the rest of its batch."""
  model, split, task, preprocess = setting
  single = {k: v[3:4] for k, v in split.items()}
  prediction = evaluation.predict(model, single, task, preprocess)
  assert prediction == evaluation.predict(*setting)[3]


def test_agreement_is_the_share_of_equal_predictions(setting, teacher):
  _, *rest = setting
  of_student = evaluation.predict(*setting)
  of_teacher = evaluation.predict(teacher, *rest)
  agreement = TASK.agreement(of_student, of_teacher)
  assert agreement == np.mean([a == b for a, b in zip(of_student, of_teacher)])
  assert TASK.agreement(of_student, of_student) == 1
