"""Losses of detectors, against numbers of torchvision 0.28."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.core.checks import UsageError

LOGITS = np.array([0.38, -0.4, 1.92, 0.31, -1.61, 1.08], np.float32)
POSITIVE = np.array([1, 1, 1, 0, 0, 1], bool)
FOCAL = [0.02148701, 0.08181231, 0.00055915, 0.21468174, 0.00379286, 0.00469727]
FOCAL_GRADIENT = [
  *(-0.04226766, -0.11931102, -0.0014979),
  *(0.32565916, 0.00978937, -0.01108588),
]
BOXES = np.array(
  [[0, 0, 4, 6], [1, 1, 3, 2], [2, 0, 4, 8], [5, 5, 9, 9]], np.float32
)
TARGETS = np.array(
  [[1, 2, 5, 6], [4, 5, 6, 9], [0, 0, 8, 8], [5, 5, 9, 9]], np.float32
)
GIOU = [0.63809526, 1.75, 0.75, 0.0]
GIOU_GRADIENT = [
  [-0.07850341, -0.08344673, -0.17891157, -0.02086167],
  [-0.025, 0.01875, -0.025, -0.05],
  [0.125, -0.03515625, -0.125, 0.03515625],
]


def value_and_grad(loss, x):
  value = loss(x)
  return value, jax.grad(lambda x: loss(x).sum())(x)


def test_the_focal_loss_is_that_of_torchvision():
  value, gradient = value_and_grad(
    lambda x: losses.focal_loss(x, POSITIVE), jnp.asarray(LOGITS)
  )
  np.testing.assert_allclose(value, FOCAL, rtol=1e-4)
  np.testing.assert_allclose(gradient, FOCAL_GRADIENT, rtol=1e-4)


def test_the_focal_loss_of_any_logit_is_finite():
  logits = jnp.array([1e4, -1e4, 1e4, -1e4])
  targets = np.array([True, True, False, False])
  value, gradient = value_and_grad(
    lambda x: losses.focal_loss(x, targets), logits
  )
  np.testing.assert_allclose(value, [0, 2500, 7500, 0], rtol=1e-5)
  np.testing.assert_allclose(gradient, [0, -0.25, 0.75, 0], rtol=1e-5)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0, 5.0])
def test_the_gradient_of_the_focal_loss_is_finite_for_any_gamma(gamma):
  logits = jnp.array([120.0, -120.0, 1e4, -1e4, 1.0])
  targets = np.array([True, False, True, False, True])
  value, gradient = value_and_grad(
    lambda x: losses.focal_loss(x, targets, gamma=gamma), logits
  )
  assert np.isfinite(value).all()
  np.testing.assert_allclose(gradient[:4], 0, atol=1e-20)
  p = 1 / (1 + np.exp(-1.0))
  expected = -0.25 * (1 - p) ** gamma * (1 - p - gamma * p * np.log(p))
  np.testing.assert_allclose(gradient[4], expected, rtol=1e-5)


@pytest.mark.parametrize(
  'keys', [{'alpha': 2.0}, {'alpha': -0.5}, {'gamma': -1.0}]
)
def test_a_focal_loss_out_of_range_is_refused(keys):
  with pytest.raises(
    UsageError, match=f'{next(iter(keys))}: expected a number'
  ):
    losses.focal_loss(jnp.zeros(2), np.ones(2, bool), **keys)


def test_giou_is_that_of_torchvision():
  value, gradient = value_and_grad(
    lambda x: losses.generalized_iou_loss(x, TARGETS), jnp.asarray(BOXES)
  )
  np.testing.assert_allclose(value, GIOU, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(gradient[:3], GIOU_GRADIENT, rtol=1e-4)


def test_giou_of_boxes_without_an_area_is_finite():
  boxes = jnp.array([[1.0, 1, 1, 1], [0.0, 0, 2, 2], [3.0, 3, 3, 3]])
  targets = jnp.array([[1.0, 1, 1, 1], [1.0, 1, 1, 1], [5.0, 5, 5, 5]])
  value, gradient = value_and_grad(
    lambda x: losses.generalized_iou_loss(x, targets), boxes
  )
  assert np.isfinite(value).all() and np.isfinite(gradient).all()
