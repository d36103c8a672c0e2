"""Pictures of processes."""

import numpy as np

from jaxdistill.methods.distpro import figures
from jaxdistill.methods.distpro.process import Pathway, Process

PATHS = (
  Pathway('a', 'x', 'T1', 1, 2),
  Pathway('a', 'x', 'T2', 1, 2),
  Pathway('b', 'y', 'T1', 2, 1),
)
WEIGHTS = np.array([[0.1, 0.2, 0.3], [0.4, 0.1, 0.2]])
PROCESS = Process(PATHS, np.array([1.5, 5.5]), 8, WEIGHTS + 1, WEIGHTS)


def test_weights_are_summed_for_each_feature_of_the_teacher():
  sums = figures.by_teacher(PROCESS)
  assert list(sums) == [1, 2]
  np.testing.assert_allclose(sums[1], [0.3, 0.2])
  np.testing.assert_allclose(sums[2], [0.3, 0.5])


def test_each_feature_of_the_teacher_has_a_picture_of_its_own():
  drawing = figures.draw(PROCESS)
  assert [axes.get_title() for axes in drawing.axes] == [
    'teacher 1 (y)',
    'teacher 2 (x)',
  ]
  one, two = (axes.get_lines() for axes in drawing.axes)
  assert len(one) == 1 and len(two) == 2
  np.testing.assert_array_equal(two[1].get_xdata(), [1.5, 5.5])
  np.testing.assert_array_equal(two[1].get_ydata(), [0.2, 0.1])
  assert two[0].get_label() == 'student 1, T1'
  assert two[0].get_linestyle() != two[1].get_linestyle()
