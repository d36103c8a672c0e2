"""Losses on maps and their gradients equal the papers' formulas in PyTorch.

tests/fixtures/make_dense_fixtures.py makes the fixture and has the formulas.
"""

import pathlib

import jax
import numpy as np
import pytest

from jaxdistill import losses, tasks
from jaxdistill.losses import numerics

FIXTURE = np.load(
  pathlib.Path(__file__).parent.parent / 'fixtures' / 'dense_losses.npz'
)


def depth_loss(name):
  task = tasks.depth(loss=name)
  return lambda maps, depth: task.loss(maps, {'depth': depth})


CASES = {
  'pixel_kd': (losses.pixel_soft_target_loss, 'logits', 'other', 'mask'),
  'channel_wise': (
    lambda x, y: losses.channel_wise_loss(x, y, temperature=4.0),
    *('logits', 'other'),
  ),
  'intra_class_variation': (
    lambda *x: losses.intra_class_variation_loss(*x, num_classes=3),
    *('student', 'teacher', 'mask'),
  ),
  'pairwise': (losses.pairwise_similarity_loss, 'student', 'teacher'),
  'berhu': (depth_loss('berhu'), 'maps', 'depth'),
  'log': (depth_loss('log'), 'maps', 'depth'),
}


@pytest.mark.parametrize('name', CASES)
def test_a_loss_and_its_gradient_are_those_of_pytorch(name):
  loss, *keys = CASES[name]
  first, *others = (FIXTURE[key] for key in keys)

  def total(x):
    values = loss(x, *others)
    return values.sum(), values

  gradient, values = jax.jit(jax.grad(total, has_aux=True))(first)
  np.testing.assert_allclose(values, FIXTURE[f'{name}/loss'], rtol=1e-4)
  expected = FIXTURE[f'{name}/gradient']
  np.testing.assert_allclose(
    gradient, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
  )


@pytest.mark.parametrize(
  'key', [key for key in FIXTURE if key.startswith('resize/')]
)
def test_maps_are_resized_as_by_pytorch(key):
  _, height, width, corners = key.split('/')
  resized = numerics.bilinear(
    FIXTURE['student'],
    (int(height), int(width)),
    align_corners=corners == 'True',
  )
  np.testing.assert_allclose(resized, FIXTURE[key], rtol=1e-4, atol=1e-5)
