"""The losses of the task of depths, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.tasks import depth

RNG = np.random.default_rng(0)
TRUE = RNG.uniform(1, 9, (3, 6, 8)).astype(np.float32)
TRUE[:, :2] = 0
TRUE[2] = 0
MAPS = RNG.uniform(0.5, 9, (3, 6, 8, 1)).astype(np.float32)


def absolute(maps, true):
  return np.abs(maps - true).mean()


def reverse_huber(maps, true):
  error = np.abs(maps - true)
  c = error.max() / 5
  return np.where(error <= c, error, (error**2 + c**2) / (2 * c)).mean()


def log_difference(maps, true):
  d = np.log(maps) - np.log(true)
  return (d**2).mean() - d.mean() ** 2 / 2


FORMULAS = {'l1': absolute, 'berhu': reverse_huber, 'log': log_difference}


@pytest.mark.parametrize('name', FORMULAS)
def test_a_loss_is_its_formula_over_known_pixels(name):
  batch = {'depth': jnp.asarray(TRUE)}
  loss = depth(loss=name).loss(jnp.asarray(MAPS), batch)
  for i in range(2):
    known = TRUE[i] > 0
    expected = FORMULAS[name](MAPS[i, ..., 0][known], TRUE[i][known])
    assert float(loss[i]) == pytest.approx(expected, rel=1e-5)
  assert loss[2] == 0  # nothing is known


@pytest.mark.parametrize('name', FORMULAS)
def test_gradients_are_finite_everywhere(name):
  batch = {'depth': jnp.asarray(TRUE)}

  @jax.jit
  def gradient(maps):
    return jax.grad(lambda x: depth(loss=name).loss(x, batch).sum())(maps)

  for maps in (MAPS, 0 * MAPS, -MAPS, TRUE[..., None]):
    found = np.asarray(gradient(jnp.asarray(maps)))
    assert np.isfinite(found).all()
    assert not found[TRUE == 0].any()


def test_the_logarithm_has_a_gradient_where_outputs_are_not_positive():
  batch = {'depth': jnp.asarray(TRUE[:1])}
  gradient = jax.grad(lambda x: depth(loss='log').loss(x, batch).sum())(
    jnp.zeros((1, 6, 8, 1))
  )
  assert (np.asarray(gradient)[TRUE[:1] > 0] < 0).all()


def test_the_scale_of_the_whole_image_counts_half():
  batch = {'depth': jnp.asarray(TRUE[:1])}
  loss = depth(loss='log').loss(jnp.asarray(2 * TRUE[:1, ..., None]), batch)
  assert float(loss[0]) == pytest.approx(np.log(2) ** 2 / 2, rel=1e-5)


def test_a_loss_that_does_not_exist_is_refused():
  with pytest.raises(UsageError, match="loss 'bernhu'; did you mean 'berhu'"):
    depth(loss='bernhu')
