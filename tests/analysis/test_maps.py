"""Pictures of masks and depths."""

import numpy as np
import pytest

from jaxdistill.analysis import maps
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import IGNORE

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (2, 6, 8, 3), np.uint8)
MASK = RNG.integers(0, 3, (2, 6, 8)).astype(np.uint8)
MASK[0, 0] = IGNORE
DEPTH = RNG.uniform(1, 9, (2, 6, 8)).astype(np.float32)
DEPTH[0, 0] = 0


def test_each_class_has_a_colour_of_its_own_and_no_class_is_black():
  colors = maps.palette()
  assert len(np.unique(colors[:40], axis=0)) == 40
  shown = maps.colored(MASK)
  np.testing.assert_array_equal(shown[0, 0], np.zeros((8, 3)))
  np.testing.assert_array_equal(shown[1], colors[MASK[1]])


def test_near_places_are_lighter_than_distant_ones_and_unknown_ones_black():
  distances = np.linspace(0, 9, 10)[None, None].astype(np.float32)
  shown = maps.colored(distances, deepest=9.0)[0, 0]
  lightness = shown.astype(float) @ [0.3, 0.6, 0.1]
  assert lightness[0] == 0
  assert (np.diff(lightness[1:]) < 0).all()


def test_each_pixel_of_a_resized_map_takes_the_nearest_place():
  x = np.arange(6).reshape(1, 2, 3)
  large = maps.nearest(x, (4, 6))
  np.testing.assert_array_equal(large, x.repeat(2, 1).repeat(2, 2))
  np.testing.assert_array_equal(maps.nearest(large, (2, 3)), x)


def texts(drawing):
  return [axes.get_title() for axes in drawing.axes if axes.get_title()]


def test_a_figure_has_a_row_for_each_image_and_a_legend_of_its_classes():
  predictions = {'student': MASK[:, ::2, ::2], 'teacher': MASK}
  names = ['road', 'sky', 'tree', 'car']
  drawing = maps.draw(IMAGE, MASK, predictions, label_names=names)
  assert texts(drawing) == ['image', 'truth', 'student', 'teacher']
  assert len(drawing.axes) == 2 * 4
  (legend,) = drawing.legends
  assert [x.get_text() for x in legend.get_texts()] == names[:3]
  shown = drawing.axes[3].get_images()[0].get_array()
  np.testing.assert_array_equal(shown, maps.colored(MASK[0]))


def test_a_figure_of_depths_has_a_scale():
  drawing = maps.draw(IMAGE[..., :1], DEPTH, {'student': DEPTH[:, ::2, ::2]})
  assert texts(drawing) == ['image', 'truth', 'student']
  scale = drawing.axes[-1]
  assert scale.get_ylabel() == 'distance'
  assert scale.get_ylim() == pytest.approx((0, DEPTH.max()))


def test_images_without_any_known_depth_are_black():
  unknown = np.zeros_like(DEPTH)
  drawing = maps.draw(IMAGE, unknown, {'student': DEPTH})
  assert not drawing.axes[1].get_images()[0].get_array().any()
  assert drawing.axes[2].get_images()[0].get_array().any()


def test_maps_that_do_not_suit_the_images_are_refused():
  with pytest.raises(UsageError, match=r'truth: expected maps \[2, 6, 8\]'):
    maps.draw(IMAGE, MASK[:, :3], {})
  with pytest.raises(UsageError, match="2 maps of 'kd', got an array"):
    maps.draw(IMAGE, MASK, {'kd': MASK[:1]})
