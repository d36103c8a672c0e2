"""Laws of geometry: what lies on an image moves with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import IGNORE
from jaxdistill.data.transforms import (
  augment,
  autoaugment,
  dense,
  geometry,
  mixing,
)

SIZE = (24, 32)
KEY = jax.random.key(3)
AUGMENTS = {
  'crop_flip': augment.crop_flip(padding=5),
  'imagenet': augment.imagenet(size=20, scale=(0.3, 1.0)),
  'smaller part': dense.scale_crop(size=(16, 20)),
  'larger part': dense.scale_crop(size=(40, 48)),
  'center': augment.center(16, 16),
  'unscaled center': augment.center(20, 28),
}


def rectangles(count=8):
  """Images of one rectangle each, whose mask is 1 and whose red is 200."""
  rng = np.random.default_rng(0)
  top, left = rng.integers(2, 8, count), rng.integers(2, 12, count)
  bottom, right = top + 12, left + 16
  rows, columns = np.arange(SIZE[0])[:, None], np.arange(SIZE[1])
  inside = (
    (rows >= top[:, None, None])
    & (rows < bottom[:, None, None])
    & (columns >= left[:, None, None])
    & (columns < right[:, None, None])
  )
  mask = inside.astype(np.uint8)
  image = np.stack([50 + 150 * mask] * 3, axis=-1).astype(np.uint8)
  boxes = np.stack([top, left, bottom, right], axis=-1)[:, None]
  return {
    'image': jnp.asarray(image),
    'mask': jnp.asarray(mask),
    'depth': jnp.asarray(np.where(inside, 4.0, 2.0).astype(np.float32)),
    'boxes': jnp.asarray(boxes.astype(np.float32)),
    'classes': jnp.ones((count, 1), jnp.int32),
  }


@pytest.fixture(scope='module')
def moved():
  batch = rectangles()
  return {
    name: jax.device_get(jax.jit(function)(KEY, batch))
    for name, function in AUGMENTS.items()
  }


def eroded(chosen, by):
  """The places whose whole neighbourhood is chosen."""
  for axis in (1, 2):
    chosen = np.logical_and.reduce(
      [np.roll(chosen, shift, axis) for shift in range(-by, by + 1)]
    )
  return chosen


@pytest.mark.parametrize('name', AUGMENTS)
def test_image_and_mask_agree_after_any_augmentation(moved, name):
  image, mask = moved[name]['image'][..., 0], moved[name]['mask']
  assert image.shape == mask.shape
  for value, level in ((0, 50), (1, 200), (IGNORE, 0)):
    clear = eroded(mask == value, 3)
    assert (image[clear] == level).all()
    assert value == IGNORE or clear.any()


@pytest.mark.parametrize('name', AUGMENTS)
def test_a_box_encloses_the_mask_of_its_rectangle(moved, name):
  batch = moved[name]
  for mask, (box,), (kind,) in zip(
    batch['mask'], batch['boxes'], batch['classes']
  ):
    rows, columns = np.nonzero(mask == 1)
    if not len(rows):
      assert kind == -1 or min(box[2:] - box[:2]) <= 0.5
      continue
    assert kind == 1
    edges = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    np.testing.assert_allclose(box, edges, atol=0.51)


@pytest.mark.parametrize('name', AUGMENTS)
def test_a_depth_is_divided_by_the_zoom(moved, name):
  mask, depth = moved[name]['mask'], moved[name]['depth']
  assert (depth[mask == IGNORE] == 0).all()
  near = np.where(mask == 0, depth, np.nan)
  for image_depth, image_near, image_mask in zip(depth, near, mask):
    if (image_mask == 1).any() and (image_mask == 0).any():
      # The rectangle is twice as far as the rest, whatever the zoom.
      ratio = image_depth[image_mask == 1] / np.nanmean(image_near)
      np.testing.assert_allclose(ratio, 2.0, rtol=1e-5)


def test_an_image_at_half_its_size_is_twice_as_far():
  half = dense.scale_crop(size=(12, 16), scale=(0.5, 0.5), mirror=False)
  batch = jax.jit(half)(KEY, rectangles(1))
  assert {*np.unique(batch['depth'])} == {4.0, 8.0}
  np.testing.assert_allclose(batch['boxes'], rectangles(1)['boxes'] / 2)


def test_mirroring_twice_is_nothing():
  batch = rectangles()
  count = len(batch['mask'])
  corner = jnp.zeros((count, 2))
  whole = jnp.broadcast_to(jnp.array(SIZE, jnp.float32), (count, 2))
  mirror = geometry.Geometry(corner, whole, jnp.ones(count, bool), SIZE)

  @jax.jit
  def mirrored(batch):
    return geometry.move(mirror, batch)

  once = mirrored(batch)
  assert (once['mask'] != batch['mask']).any()
  for name, column in mirrored(once).items():
    np.testing.assert_array_equal(column, batch[name])


def test_what_leaves_the_image_is_no_box_any_more():
  batch = rectangles(1)
  corner = jnp.array([[0.0, 31.0]])
  part = geometry.Geometry(
    corner, jnp.array([[24.0, 32.0]]), jnp.zeros(1, bool), SIZE
  )

  @jax.jit
  def move(batch, corner):
    return geometry.move_targets(part._replace(corner=corner), batch)

  moved = move(batch, corner)
  assert moved['classes'].tolist() == [[-1]]
  assert not moved['boxes'].any()
  again = move(moved, -corner)
  assert again['classes'].tolist() == [[-1]]


@pytest.mark.parametrize(
  'name, function',
  [
    ('autoaugment', autoaugment.autoaugment()),
    ('autoaugment', autoaugment.randaugment()),
    ('mixup', mixing.mixup(num_classes=2)),
    ('cutmix', mixing.cutmix(num_classes=2)),
  ],
)
def test_an_augmentation_that_moves_only_images_refuses_masks(name, function):
  batch = {**rectangles(2), 'label': jnp.zeros(2, jnp.int32)}
  with pytest.raises(UsageError, match=f"'{name}' moves images, .* 'mask'"):
    jax.eval_shape(function, KEY, batch)


def test_mixing_without_labels_is_refused():
  batch = {'image': rectangles(2)['image'], 'index': jnp.arange(2)}
  with pytest.raises(UsageError, match=r"'mixup' .* 'label', got image, index"):
    jax.eval_shape(mixing.mixup(num_classes=2), KEY, batch)


@pytest.mark.parametrize('name', ['label', 'normals'])
def test_a_column_of_the_images_size_that_cannot_be_moved_is_refused(name):
  batch = rectangles(2)
  batch = {'image': batch['image'], name: batch['mask']}
  with pytest.raises(UsageError, match=f"'mask' or 'depth'.*, got '{name}'"):
    jax.eval_shape(augment.crop_flip(), KEY, batch)
