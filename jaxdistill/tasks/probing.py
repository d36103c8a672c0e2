"""How well labels can be read from vectors: k-NN and a linear classifier.

Both classify test images by the vectors and labels of the training images. The
nearest neighbours vote as in Wu et al., Unsupervised Feature Learning via
Non-Parametric Instance Discrimination, 2018, https://arxiv.org/abs/1805.01978,
and Caron et al., Emerging Properties in Self-Supervised Vision Transformers,
2021, https://arxiv.org/abs/2104.14294.
"""

from typing import Any
import warnings

import numpy as np

from jaxdistill.core import checks, optional

# The metrics of `probes`.
NAMES = ('knn', 'linear')
# Test images whose similarities are in memory at the same time.
_CHUNK = 1024


def probes(
  train: np.ndarray,
  train_label: np.ndarray,
  test: np.ndarray,
  test_label: np.ndarray,
) -> dict[str, float]:
  """Returns {'knn': accuracy, 'linear': accuracy} on the test images.

  Args:
    train: the vectors of the training images `[N, D]`.
    train_label: their classes `[N]`.
    test: the vectors of the test images `[M, D]`.
    test_label: their classes `[M]`.
  """
  return {
    'knn': knn_accuracy(train, train_label, test, test_label),
    'linear': linear_accuracy(train, train_label, test, test_label),
  }


def knn_accuracy(
  train: np.ndarray,
  train_label: np.ndarray,
  test: np.ndarray,
  test_label: np.ndarray,
  *,
  neighbors: int = 20,
  temperature: float = 0.07,
) -> float:
  """Returns the accuracy of the vote of the nearest neighbours.

  The neighbours are the training images with the largest cosine, and each one
  votes for its class with the weight exp(cosine / temperature).

  Args:
    train: see `probes`, like the other arrays.
    train_label: the classes of the training images.
    test: the vectors of the test images.
    test_label: their classes.
    neighbors: the number of neighbours; all images if there are fewer.
    temperature: how much closer neighbours count more.

  Raises:
    UsageError: a number is out of its range.
  """
  checks.integer('neighbors', neighbors)
  checks.number('temperature', temperature, above=0)
  train, test = _directions(train), _directions(test)
  neighbors = min(neighbors, len(train))
  classes, numbers = np.unique(train_label, return_inverse=True)
  correct = 0
  for start in range(0, len(test), _CHUNK):
    cosines = test[start : start + _CHUNK] @ train.T
    nearest = np.argpartition(-cosines, neighbors - 1, axis=1)[:, :neighbors]
    near = np.take_along_axis(cosines, nearest, axis=1)
    weights = np.exp((near - near.max(1, keepdims=True)) / temperature)
    votes = np.zeros((len(cosines), len(classes)))
    np.add.at(
      votes, (np.arange(len(cosines))[:, None], numbers[nearest]), weights
    )
    predicted = classes[votes.argmax(1)]
    correct += int((predicted == test_label[start : start + _CHUNK]).sum())
  return correct / len(test)


def linear_accuracy(
  train: np.ndarray,
  train_label: np.ndarray,
  test: np.ndarray,
  test_label: np.ndarray,
  *,
  steps: int = 200,
) -> float:
  """Returns the accuracy of a logistic regression on standardised vectors.

  It is that of scikit-learn, with its default penalty. Each entry is divided by
  its standard deviation over the training images.

  Args:
    train: see `probes`, like the other arrays.
    train_label: the classes of the training images.
    test: the vectors of the test images.
    test_label: their classes.
    steps: the largest number of steps of the solver.
  """
  if len(np.unique(train_label)) == 1:
    return float(np.mean(test_label == train_label[0]))
  linear_model: Any = optional.require('sklearn.linear_model', 'a linear probe')
  mean, sd = train.mean(0), train.std(0)
  scale = np.where(sd > 0, sd, 1.0)
  classifier = linear_model.LogisticRegression(max_iter=steps)
  with warnings.catch_warnings():
    # The accuracy hardly changes in the steps that are missing.
    warnings.simplefilter('ignore')
    classifier.fit((train - mean) / scale, train_label)
  return float(classifier.score((test - mean) / scale, test_label))


def _directions(vectors: np.ndarray) -> np.ndarray:
  """Returns vectors of length 1 in float32; zero vectors stay zero."""
  vectors = np.asarray(vectors, np.float32)
  length = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(length > 0, length, 1.0)
