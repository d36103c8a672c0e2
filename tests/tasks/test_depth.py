"""The scores of the task `depth`."""

import numpy as np
import pytest

from jaxdistill.tasks.depth import depth


def test_an_image_without_any_known_depth_does_not_improve_the_score():
  task = depth()
  true = np.full((2, 4, 4), 2.0, np.float32)
  true[1] = 0.0  # nothing is known about the second image
  outputs = np.full((2, 4, 4, 1), 3.0, np.float32)
  rows = {
    k: np.asarray(v)
    for k, v in task.statistics(outputs, {'depth': true}).items()
  }
  metrics = task.summarize(rows)
  assert metrics['rmse'] == pytest.approx(1.0)
  assert metrics['abs_rel'] == pytest.approx(0.5)
  assert 'known' not in metrics
