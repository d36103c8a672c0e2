"""Pictures with boxes."""

import io

import numpy as np
import pytest

from jaxdistill.analysis import detections
from jaxdistill.core.checks import UsageError

IMAGE = np.full((20, 30, 1), 7, np.uint8)
# Two objects, a row without an object, and one with a low score.
FOUND = np.array(
  [
    [2, 3, 10, 12, 0.9, 0],
    [5, 5, 40, 50, 0.5, 9],
    [0, 0, 19, 29, 0.9, -1],
    [0, 0, 19, 29, 0.1, 1],
  ]
)


def test_the_border_of_a_box_has_the_colour_of_its_class():
  picture = detections.drawn(IMAGE, FOUND[:1])
  assert picture.shape == (20, 30, 3) and (IMAGE == 7).all()
  coloured = (picture == detections.COLOURS[0]).all(-1)
  expected = np.zeros((20, 30), bool)
  expected[2:11, 3:13] = True
  expected[3:10, 4:12] = False
  np.testing.assert_array_equal(coloured, expected)
  assert (picture[~coloured] == 7).all()


def test_boxes_beyond_the_image_end_at_its_border():
  picture = detections.drawn(IMAGE, FOUND)
  second = (picture == detections.COLOURS[9 % 8]).all(-1)
  assert second[19, 20] and second[15, 29]
  # The row without an object and that with a low score are not drawn.
  assert (picture[0] == 7).all()


def test_a_figure_has_a_column_for_the_truth_and_each_model():
  images = np.stack([IMAGE] * 2)
  truth = detections.objects(FOUND[None, :2, :4].repeat(2, 0), np.zeros((2, 2)))
  np.testing.assert_array_equal(truth[..., 4:], [[[1, 0]] * 2] * 2)
  found = {'truth': truth, 'student': FOUND[None].repeat(2, 0)}
  figure = detections.draw(images, found, label_names=('cat', 'dog'))
  assert len(figure.axes) == 4
  assert [axes.get_title() for axes in figure.axes[:2]] == ['truth', 'student']
  shown = figure.axes[1].images[0].get_array()
  np.testing.assert_array_equal(shown, detections.drawn(IMAGE, FOUND))
  figure.savefig(io.BytesIO())


def test_columns_of_other_images_are_refused():
  with pytest.raises(UsageError, match=r'found: expected objects \[2, D, 6\]'):
    detections.draw(np.stack([IMAGE] * 2), {'truth': FOUND[None]})
