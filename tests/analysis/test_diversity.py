"""Output diversity: its bound, a value by hand, and the paper's intervals."""

import jax
import numpy as np
import pytest

from jaxdistill.analysis import diversity
from jaxdistill.core.checks import UsageError
from jaxdistill.data.transforms import augment
from jaxdistill.networks import graph

STANDARD = augment.standardize((128.0,), (64.0,))


def test_uncorrelated_gradients_reach_the_bound():
  """All N eigenvalues are 1, so the score is -N (log(1) + 1 / 1)."""
  rows = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
  assert abs(diversity.correlation_score(rows) + 3) < 1e-4


def test_the_score_of_a_correlation_of_one_half_by_hand():
  """The eigenvalues of a correlation of 1/2 are 3/2 and 1/2."""
  first, second = np.array([1, 1, -1, -1]), np.array([1, -1, 1, -1])
  rows = np.stack([first, first / 2 + np.sqrt(3) / 2 * second])
  expected = -(np.log(1.5) + 1 / 1.5 + np.log(0.5) + 2)
  assert abs(diversity.correlation_score(rows) - expected) < 1e-3
  # The scale and the mean of a gradient do not matter.
  moved = rows * np.array([[7.0], [0.1]]) + 3
  assert abs(diversity.correlation_score(moved) - expected) < 1e-3


def test_equal_gradients_have_a_far_lower_score():
  rows = np.ones((3, 1)) * np.array([[1.0, 2.0, 4.0]])
  assert diversity.correlation_score(rows) < -1e5


def test_a_network_that_does_not_respond_is_an_error():
  with pytest.raises(ValueError, match='constant'):
    diversity.correlation_score(np.zeros((2, 4)))


@pytest.mark.parametrize('train', [True, False])
def test_the_score_is_that_of_the_gradients_of_the_logits(
  train, student, dataset
):
  split = dataset.splits['train']
  score = diversity.output_diversity(
    student, split, STANDARD, size=8, train=train
  )
  chosen = np.sort(np.random.default_rng(0).permutation(24)[:8])
  image = (split['image'][chosen].astype(np.float32) - 128) / 64

  def total(image):
    network, variables = student
    features, _ = graph.run(network, variables, {'image': image}, train=train)
    return features['head'].sum()

  rows = np.asarray(jax.jit(jax.grad(total))(image)).reshape(8, -1)
  np.testing.assert_allclose(
    score, diversity.correlation_score(rows), rtol=1e-3
  )
  assert score < -8


def test_the_interval_has_the_numbers_of_the_paper():
  """Table 6 has 0.560, 0.250, 0.645 for label distillation, five networks."""
  spread = 0.560 * np.sqrt(4 / 2)
  interval = diversity.interval(-142.22 + spread * np.array([1, -1, 0, 0, 0]))
  np.testing.assert_allclose(
    interval, (-142.22, 0.560, 0.250, 0.645), atol=6e-4
  )


@pytest.mark.parametrize(
  ('size', 'words'),
  [(1, 'size: .* at least 2, got 1'), (25, 'size: .* at most 24, .*, got 25')],
)
def test_a_number_of_images_out_of_range_is_refused(
  size, words, student, dataset
):
  with pytest.raises(UsageError, match=words):
    diversity.output_diversity(
      student, dataset.splits['train'], STANDARD, size=size
    )


def test_as_many_images_as_an_image_has_values_are_refused(student, dataset):
  split = {'image': dataset.splits['train']['image'][:, :2, :2]}
  values = split['image'][0].size
  with pytest.raises(UsageError, match=f'size: .* {values}, .*, got {values}'):
    diversity.output_diversity(student, split, STANDARD, size=values)


def test_one_score_has_no_interval():
  with pytest.raises(UsageError, match='at least two, got 1'):
    diversity.interval([1.0])
