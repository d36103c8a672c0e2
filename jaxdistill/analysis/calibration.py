"""How far the confidence of a classifier is from its accuracy.

Guo et al., On Calibration of Modern Neural Networks, 2017,
https://arxiv.org/abs/1706.04599, Equations (1) to (3).
"""

from typing import NamedTuple

import numpy as np

from jaxdistill.core import checks


class Bin(NamedTuple):
  """The images whose highest probability is in one interval.

  Attributes:
    size: the number of these images, at least 1.
    confidence: the mean of their highest probabilities.
    accuracy: the fraction of these images whose most probable class is right.
  """

  size: int
  confidence: float
  accuracy: float


def reliability(
  probabilities: np.ndarray, label: np.ndarray, *, bins: int = 15
) -> list[Bin]:
  """Returns the intervals of confidence that hold images, in ascending order.

  Args:
    probabilities: the probabilities of the classes `[N, num_classes]`.
    label: the right classes `[N]`.
    bins: the number of intervals of equal length from 0 to 1.

  Raises:
    UsageError: the number of intervals is not at least 1.
  """
  checks.integer('bins', bins)
  probabilities = np.asarray(probabilities, np.float64)
  confidence = probabilities.max(-1)
  is_right = probabilities.argmax(-1) == label
  # An interval includes its upper end, as in the paper.
  numbers = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
  return [
    Bin(
      int(np.sum(numbers == i)),
      float(confidence[numbers == i].mean()),
      float(is_right[numbers == i].mean()),
    )
    for i in np.unique(numbers)
  ]


def expected_calibration_error(
  probabilities: np.ndarray, label: np.ndarray, *, bins: int = 15
) -> float:
  """Returns the mean distance between confidence and accuracy, in [0, 1].

    sum_b (n_b / N) |accuracy_b - confidence_b|

  Args:
    probabilities: the probabilities of the classes `[N, num_classes]`.
    label: the right classes `[N]`.
    bins: the number of intervals of equal length from 0 to 1.
  """
  found = reliability(probabilities, label, bins=bins)
  distances = [b.size * abs(b.accuracy - b.confidence) for b in found]
  return sum(distances) / len(label)
