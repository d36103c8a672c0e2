"""Views: the same whenever they are made, and never of several images."""

import jax
import numpy as np
import pytest

from jaxdistill.core.types import TEACHER_OUTPUTS
from jaxdistill.data.transforms import augment, mixing, views

B, SIZE = 8, 6
RNG = np.random.default_rng(0)
BATCH = {
  'image': RNG.integers(0, 256, (B, SIZE, SIZE, 3), np.uint8),
  'index': np.arange(100, 100 + B, dtype=np.int32),
  'label': np.arange(B),
}
CROP_FLIP = augment.crop_flip(padding=2)


@pytest.fixture(scope='module')
def make():
  return jax.jit(views.fixed(CROP_FLIP))


def test_a_view_depends_only_on_the_image_and_on_its_number(make):
  view = np.arange(B) % 3
  first = make(jax.random.key(0), {**BATCH, views.VIEW: view})
  order = RNG.permutation(B)
  moved = {name: x[order] for name, x in BATCH.items()}
  second = make(jax.random.key(1), {**moved, views.VIEW: view[order]})
  assert first.keys() == BATCH.keys()
  for name, x in first.items():
    np.testing.assert_array_equal(x[order], second[name])


def test_the_views_of_an_image_differ(make):
  same = {name: x[:1].repeat(B, 0) for name, x in BATCH.items()}
  image = make(jax.random.key(0), {**same, views.VIEW: np.arange(B)})['image']
  assert len({x.tobytes() for x in np.asarray(image)}) > B // 2


def test_a_drawn_view_comes_with_the_outputs_for_it(make):
  count = 3
  outputs = RNG.normal(size=(B, count, 5)).astype(np.float16)
  drawn = jax.jit(views.drawn(CROP_FLIP, count))
  every = [
    make(jax.random.key(0), {**BATCH, views.VIEW: np.full(B, i)})['image']
    for i in range(count)
  ]
  counts = np.zeros(count, int)
  for seed in range(12):
    batch = drawn(
      jax.random.key(seed), {**BATCH, TEACHER_OUTPUTS: jax.numpy.array(outputs)}
    )
    assert batch[TEACHER_OUTPUTS].dtype == np.float32
    for i in range(B):
      expected = np.asarray(batch[TEACHER_OUTPUTS][i])
      ((view,),) = np.nonzero((outputs[i] == expected).all(-1))
      np.testing.assert_array_equal(batch['image'][i], every[view][i])
      counts[view] += 1
  assert counts.min() > 12 * B / count / 2


def whiten(rng, batch):
  """An augmentation of a user, which reads the whole batch."""
  del rng
  image = batch['image'].astype(np.float32)
  return {**batch, 'image': image - image.mean()}


@pytest.mark.parametrize(
  ('function', 'expected'),
  [
    (augment.none(), False),
    (CROP_FLIP, False),
    (augment.color_jitter(brightness=0.4, contrast=0.4), False),
    (mixing.cutout(size=2, mean=(0.0,)), False),
    (augment.chain(CROP_FLIP, mixing.mixup(num_classes=B)), True),
    (mixing.cutmix(num_classes=B, probability=0.3), True),
    (mixing.regularized(mix=mixing.alternate(num_classes=B)), True),
    (augment.repeated(CROP_FLIP, count=2), True),
    (whiten, True),
  ],
)
def test_augmentations_that_mix_images_are_found(function, expected):
  assert views.mixes(function, BATCH) == expected
