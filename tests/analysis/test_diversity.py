"""Output diversity: its bound, by hand, and the paper's intervals."""

import jax
import numpy as np
import pytest

from jaxdistill.analysis import diversity
from jaxdistill.data import augment
from jaxdistill.networks import staged
from jaxdistill.types import UsageError

STANDARD = augment.standardize((128.0,), (64.0,))


def test_uncorrelated_gradients_reach_the_bound():
  """-N: log(1) + 1 / 1 for each of N eigenvalues of 1."""
  rows = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
  assert abs(diversity.correlation_score(rows) + 3) < 1e-4


def test_a_correlation_by_hand():
  """Of correlation 1/2 the eigenvalues are 3/2 and 1/2."""
  first, second = np.array([1, 1, -1, -1]), np.array([1, -1, 1, -1])
  rows = np.stack([first, first / 2 + np.sqrt(3) / 2 * second])
  wanted = -(np.log(1.5) + 1 / 1.5 + np.log(0.5) + 2)
  assert abs(diversity.correlation_score(rows) - wanted) < 1e-3
  # Scale and shift of a gradient do not count.
  moved = rows * np.array([[7.0], [0.1]]) + 3
  assert abs(diversity.correlation_score(moved) - wanted) < 1e-3


def test_equal_gradients_score_far_below():
  rows = np.ones((3, 1)) * np.array([[1.0, 2.0, 4.0]])
  assert diversity.correlation_score(rows) < -1e5


def test_a_dead_network_is_an_error():
  with pytest.raises(ValueError, match='constant'):
    diversity.correlation_score(np.zeros((2, 4)))


@pytest.mark.parametrize('train', [True, False])
def test_a_network_is_scored_by_the_gradients_of_its_logits(
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
    features, _ = staged.run(network, variables, {'image': image}, train=train)
    return features['head'].sum()

  rows = np.asarray(jax.jit(jax.grad(total))(image)).reshape(8, -1)
  np.testing.assert_allclose(
    score, diversity.correlation_score(rows), rtol=1e-3
  )
  assert score < -8


def test_the_intervals_are_the_papers():
  """Table 6, label distillation: 0.560, 0.250, 0.645 of five networks."""
  spread = 0.560 * np.sqrt(4 / 2)
  found = diversity.interval(-142.22 + spread * np.array([1, -1, 0, 0, 0]))
  np.testing.assert_allclose(found, (-142.22, 0.560, 0.250, 0.645), atol=6e-4)


@pytest.mark.parametrize('size', [1, 25])
def test_as_many_images_as_there_are_not_are_refused(size, student, dataset):
  with pytest.raises(UsageError, match=f'size: {size}; wanted 2 to 24'):
    diversity.output_diversity(
      student, dataset.splits['train'], STANDARD, size=size
    )


def test_one_score_has_no_interval():
  with pytest.raises(UsageError, match='two scores'):
    diversity.interval([1.0])
