"""The loss and metrics of classification, against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset, Task
from jaxdistill.phases import recipes
from jaxdistill.tasks.classification import classification, one_hot

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 7)).astype(np.float32)
LABEL = RNG.integers(0, 7, 6)
MIXED = RNG.dirichlet(np.ones(7), 6).astype(np.float32)
TASK = classification()


def log_softmax(logits):
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def statistics(logits, label):
  rows = TASK.statistics(jnp.asarray(logits), {'label': jnp.asarray(label)})
  return {k: list(np.asarray(v)) for k, v in rows.items()}


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('label', [LABEL, MIXED], ids=['hard', 'mixed'])
def test_loss_matches_numpy(label, smoothing):
  target = np.eye(7)[label] if label.ndim == 1 else label
  target = (1 - smoothing) * target + smoothing / 7
  expected = -(target * log_softmax(LOGITS.astype(np.float64))).sum(-1)
  task = classification(label_smoothing=smoothing)
  loss = task.loss(jnp.asarray(LOGITS), {'label': jnp.asarray(label)})
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_loss_of_half_precision_logits_is_computed_in_float32():
  half = jnp.asarray(LOGITS, jnp.bfloat16)
  loss = TASK.loss(half, {'label': jnp.asarray(LABEL)})
  assert loss.dtype == jnp.float32
  full = TASK.loss(half.astype(jnp.float32), {'label': jnp.asarray(LABEL)})
  np.testing.assert_array_equal(loss, full)


def test_label_smoothing_only_affects_the_training_loss():
  smooth = classification(label_smoothing=0.3)
  batch = {'label': jnp.asarray(LABEL)}
  np.testing.assert_array_equal(
    smooth.statistics(jnp.asarray(LOGITS), batch)['loss'],
    TASK.statistics(jnp.asarray(LOGITS), batch)['loss'],
  )
  assert (
    smooth.loss(jnp.asarray(LOGITS), batch)
    != TASK.loss(jnp.asarray(LOGITS), batch)
  ).any()


def test_top1_and_top5_of_an_example_by_hand():
  row = [0.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0]
  # Class 1 is first, class 5 is fifth, class 6 is sixth, class 0 is last.
  rows = statistics([row] * 4, [1, 5, 6, 0])
  assert rows['top1'] == [1, 0, 0, 0]
  assert rows['top5'] == [1, 1, 0, 0]


def test_the_first_of_equal_logits_is_the_prediction_as_for_argmax():
  rows = statistics([[3.0, 3.0, 1, 1, 1, 1, 1]] * 4, [0, 1, 4, 6])
  assert rows['top1'] == [1, 0, 0, 0]
  # Among the five equal classes from 2 on, class 4 is fifth and 6 is seventh.
  assert rows['top5'] == [1, 1, 1, 0]


@pytest.mark.parametrize('value', [0.0, np.inf, -np.inf])
def test_constant_logits_predict_the_first_class(value):
  rows = statistics(np.full((7, 7), value), np.arange(7))
  assert rows['top1'] == [1, 0, 0, 0, 0, 0, 0]
  assert sum(rows['top5']) == 5


def test_logits_that_are_nan_are_never_right():
  rows = statistics(np.full((7, 7), np.nan), np.arange(7))
  assert not any(rows['top1'])
  assert not any(rows['top5'])


def test_a_nan_logit_is_never_right():
  row = [1.0, np.nan, 0, 0, 0, 0, 0]
  assert statistics([row] * 2, [0, 1])['top1'] == [0, 0]


def test_with_fewer_than_5_classes_top5_is_always_right():
  rows = statistics([[3.0, 2, 1], [1.0, 1, 1]], [2, 1])
  assert rows['top1'] == [0, 0]
  assert rows['top5'] == [1, 1]


def test_the_label_of_a_mixed_example_is_its_most_likely_class():
  rows = statistics(LOGITS, MIXED)
  plain = statistics(LOGITS, MIXED.argmax(-1))
  assert rows['top1'] == plain['top1']


def test_a_summary_is_the_mean_over_the_split():
  rows = {'top1': np.array([1, 0, 0, 1], np.float32), 'loss': np.arange(4.0)}
  assert TASK.summarize(rows) == {'top1': 0.5, 'loss': 1.5}


def test_the_mean_of_many_rows_in_half_precision_is_exact():
  rows = np.ones(20_000_000, np.float16)
  assert TASK.summarize({'top1': rows}) == {'top1': 1.0}


def test_the_score_is_among_the_metrics_and_higher_is_better():
  label = np.arange(7)
  right = {k: np.array(v) for k, v in statistics(np.eye(7), label).items()}
  wrong = {k: np.array(v) for k, v in statistics(-np.eye(7), label).items()}
  assert TASK.summarize(right)[TASK.score.name] == 1
  assert TASK.summarize(wrong)[TASK.score.name] == 0


def test_predictions_are_largest_logits_and_agreement_counts_equal_ones():
  predictions = TASK.predict(jnp.asarray(LOGITS), {})
  np.testing.assert_array_equal(predictions, LOGITS.argmax(-1))
  assert TASK.agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 0.75


def test_one_hot_rows_add_up_to_one():
  rows = one_hot(jnp.asarray(LABEL), 7)
  np.testing.assert_array_equal(rows, np.eye(7)[LABEL])
  assert one_hot(jnp.asarray(MIXED), 7).dtype == jnp.float32


def test_the_loss_has_the_gradient_of_softmax_regression():
  batch = {'label': jnp.asarray(LABEL)}
  gradient = jax.grad(lambda x: TASK.loss(x, batch).sum())(jnp.asarray(LOGITS))
  expected = np.exp(log_softmax(LOGITS)) - np.eye(7)[LABEL]
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


def _labelled(**labels):
  """Returns a data set of 3 classes with the labels of each split."""
  splits = {
    name: {
      'image': np.zeros((len(label), 4, 4, 1), np.uint8),
      'label': np.asarray(label),
      'index': np.arange(len(label), dtype=np.int32),
    }
    for name, label in labels.items()
  }
  return Dataset(splits, 3, (0.0,), (1.0,))


@pytest.mark.parametrize(
  'split, label, received',
  [
    ('train', [0, 1, 3, 2], '0 to 3'),
    ('validation', [-1, 0, 1, 2], '-1 to 2'),
    ('test', [1000, 1, 2, 1], '1 to 1000'),
    ('train', [0.0, 0.5, 1.0, 2.0], '0.0 to 2.0'),
  ],
)
def test_labels_that_are_no_class_are_refused_before_training(
  split, label, received
):
  labels = {'train': [0, 1, 2, 2], 'test': [0, 1], split: label}
  with pytest.raises(UsageError) as caught:
    recipes.recipe(_labelled(**labels), epochs=1, batch_size=2)
  assert str(caught.value) == (
    f'labels: expected integers from 0 to 2 in the split {split!r}, got '
    f'{received}'
  )


def test_all_classes_and_mixed_labels_are_accepted():
  TASK.check(_labelled(train=[0, 1, 2], test=[2], validation=[]))
  TASK.check(_labelled(train=MIXED, test=[0]))


def test_a_users_task_need_not_check_labels():
  anything = TASK._replace(check=Task._field_defaults['check'])
  data = _labelled(train=[7, -7], test=[0.5])
  assert recipes.recipe(data, anything, epochs=1, batch_size=2).task == anything
