"""CosFace and ArcFace against the authors' equations written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses
from jaxdistill.core.checks import UsageError

COSINES = np.array(
  [[0.3, -0.2, 0.9], [-0.95, 0.1, 0.0], [1.0, -1.0, 0.5], [-1.0, 0.2, 0.4]],
  np.float32,
)
LABEL = [0, 0, 0, 0]


def written_out(kind, scale, margin):
  """One image at a time, as in the authors' code."""
  values = []
  for cosines, label in zip(COSINES.astype(float).tolist(), LABEL):
    if kind == 'cosface':
      cosines[label] -= margin
    else:
      angle = math.acos(cosines[label])
      cosines[label] = (
        math.cos(angle + margin)
        if angle + margin < math.pi
        else cosines[label] - margin * math.sin(margin)
      )
    logits = [scale * x for x in cosines]
    total = math.log(sum(math.exp(x - max(logits)) for x in logits))
    values.append(total + max(logits) - logits[label])
  return values


@pytest.mark.parametrize('kind', ['cosface', 'arcface'])
@pytest.mark.parametrize(
  ('scale', 'margin'), [(4.0, 0.0), (16.0, 0.35), (64, 1)]
)
def test_a_margin_loss_is_that_of_its_paper(kind, scale, margin):
  loss = getattr(losses, f'{kind}_loss')
  target = np.eye(3, dtype=np.float32)[LABEL]
  computed = loss(COSINES, target, scale=scale, margin=margin)
  expected = written_out(kind, scale, margin)
  np.testing.assert_allclose(computed, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize('kind', ['cosface', 'arcface'])
def test_the_gradient_of_a_margin_loss_is_finite_at_both_poles(kind):
  loss = getattr(losses, f'{kind}_loss')
  target = np.eye(3, dtype=np.float32)[LABEL]
  gradient = jax.grad(lambda x: loss(x, target).sum())(jnp.asarray(COSINES))
  assert np.isfinite(gradient).all()
  assert (np.asarray(gradient)[:2, 0] < 0).all()  # towards the true class


def test_a_margin_is_shared_between_the_classes_of_a_mixed_image():
  target = np.array([[0.25, 0.75, 0.0]], np.float32)
  cosines = COSINES[:1]
  shifted = cosines - 0.35 * target
  logits = 8 * shifted
  expected = -(target * jax.nn.log_softmax(logits)).sum(-1)
  scale = np.full((1, 1), 8.0, np.float32)
  computed = losses.cosface_loss(cosines, target, scale=scale)
  np.testing.assert_allclose(computed, expected, rtol=1e-6)


@pytest.mark.parametrize('kind', ['cosface', 'arcface'])
@pytest.mark.parametrize('margin', [-0.1, 2.5, math.nan])
def test_a_margin_out_of_its_range_is_refused(kind, margin):
  with pytest.raises(UsageError, match=r'margin: expected a number in \[0, '):
    getattr(losses, f'{kind}_loss')(COSINES, COSINES, margin=margin)
