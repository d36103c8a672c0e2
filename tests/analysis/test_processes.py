"""Pictures of processes."""

import numpy as np

from jaxdistill.analysis import processes
from jaxdistill.process import Pathway, Process

PATHS = (
  Pathway('a', 'x', 'T1', 1, 2),
  Pathway('a', 'x', 'T2', 1, 2),
  Pathway('b', 'y', 'T1', 2, 1),
)
WEIGHTS = np.array([[0.1, 0.2, 0.3], [0.4, 0.1, 0.2]])
PROCESS = Process(PATHS, np.array([1.5, 5.5]), 8, WEIGHTS + 1, WEIGHTS)


def test_weights_are_summed_into_each_feature_of_the_teacher():
  found = processes.by_teacher(PROCESS)
  assert list(found) == [1, 2]
  np.testing.assert_allclose(found[1], [0.3, 0.2])
  np.testing.assert_allclose(found[2], [0.3, 0.5])


def test_each_feature_of_the_teacher_has_its_picture():
  drawn = processes.draw(PROCESS)
  assert [axes.get_title() for axes in drawn.axes] == [
    'teacher 1 (y)',
    'teacher 2 (x)',
  ]
  one, two = (axes.get_lines() for axes in drawn.axes)
  assert len(one) == 1 and len(two) == 2
  np.testing.assert_array_equal(two[1].get_xdata(), [1.5, 5.5])
  np.testing.assert_array_equal(two[1].get_ydata(), [0.2, 0.1])
  assert two[0].get_label() == 'student 1, T1'
  assert two[0].get_linestyle() != two[1].get_linestyle()
