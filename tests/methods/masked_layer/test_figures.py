"""Figures of masks."""

import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.methods.masked_layer import figures, noise


def test_a_figure_shows_the_pixels_and_channels_of_each_mask():
  generator = np.random.default_rng(0)
  values = {name: generator.random((3, 4, 5)) for name in ('stem', 'group1')}
  drawing = figures.draw({k: noise.mask_summary(v) for k, v in values.items()})
  for i, (name, mask) in enumerate(values.items()):
    left, right = drawing.axes[2 * i : 2 * i + 2]
    assert left.get_ylabel() == name
    pixels = left.images[0].get_array()
    np.testing.assert_allclose(pixels, mask.mean(-1), atol=1e-4)
    heights = [bar.get_height() for bar in right.patches]
    expected = np.sort(mask.mean((0, 1)))[::-1]
    np.testing.assert_allclose(heights, expected, atol=1e-4)
    assert f'{(mask > 0.5).mean():.0%} above' in right.get_title()


def test_a_mask_of_a_vector_is_refused():
  with pytest.raises(UsageError, match="got that of a vector at 'pool'"):
    figures.draw({'pool': noise.mask_summary(np.ones(4))})
