"""Cutout, Mixup and CutMix: the pixels of mixed images, and their labels."""

import jax
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.data.transforms import augment, autoaugment, mixing
from jaxdistill.phases import recipes
from jaxdistill.tasks import classification

B, SIZE, CLASSES = 16, 12, 20
# Each image has its own grey level and its own class.
IMAGE = np.broadcast_to(
  10 + np.arange(B, dtype=np.uint8)[:, None, None, None], (B, SIZE, SIZE, 1)
)
BATCH = {'image': jax.numpy.asarray(IMAGE), 'label': jax.numpy.arange(B)}


def runs(function, count=40):
  compiled = jax.jit(function)
  return [
    jax.tree.map(np.asarray, compiled(jax.random.key(i), BATCH))
    for i in range(count)
  ]


@pytest.fixture(scope='module')
def mixed():
  return runs(mixing.cutmix(num_classes=CLASSES, probability=1.0))


def test_the_label_weight_of_cutmix_is_the_area(mixed):
  """Classes whose grey level does not occur have weight 0."""
  for out in mixed:
    for image, label in zip(out['image'], out['label']):
      levels, counts = np.unique(image, return_counts=True)
      expected = np.zeros(CLASSES)
      expected[levels - 10] = counts / SIZE**2
      np.testing.assert_allclose(label, expected, atol=1e-6)


def test_all_images_of_a_batch_have_the_same_box(mixed):
  for out in mixed:
    foreign = out['image'] != IMAGE
    boxes = foreign[foreign.any((1, 2, 3))]
    assert (boxes == boxes[:1]).all()
    if len(boxes):
      rows, columns = np.nonzero(boxes[0, :, :, 0])
      area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
      assert len(rows) == area


def test_shares_are_spread_widely(mixed):
  """They are uniform before the box is clipped at the edges."""
  shares = [out['label'].max(1)[0] for out in mixed]
  assert min(shares) < 0.65 and max(shares) > 0.95 and len(set(shares)) > 15


def test_a_batch_is_mixed_with_the_chosen_probability():
  half = runs(mixing.cutmix(num_classes=CLASSES, probability=0.5), 60)
  same = sum((out['image'] == IMAGE).all() for out in half)
  assert 15 <= same <= 50
  never = runs(mixing.cutmix(num_classes=CLASSES, probability=0.0), 3)
  for out in never:
    np.testing.assert_array_equal(out['image'], IMAGE)
    np.testing.assert_array_equal(out['label'], np.eye(CLASSES)[:B])


@pytest.mark.parametrize('alpha', [1.0, 0.2])
def test_mixup_mixes_images_like_labels(alpha):
  for out in runs(mixing.mixup(num_classes=CLASSES, alpha=alpha), 10):
    assert out['image'].dtype == out['label'].dtype == np.float32
    levels = out['label'] @ (10.0 + np.arange(CLASSES))
    np.testing.assert_allclose(
      out['image'],
      np.broadcast_to(levels[:, None, None, None], IMAGE.shape),
      rtol=1e-5,
    )
    np.testing.assert_allclose(out['label'].sum(1), 1, rtol=1e-5)
    assert ((out['label'] > 0).sum(1) <= 2).all()


def test_a_batch_has_mixup_or_cutmix():
  """Only Mixup creates grey levels that no image had; both mix the labels."""
  is_cutmix = []
  function = mixing.alternate(num_classes=CLASSES, mixup_alpha=1.0)
  for out in runs(function, 30):
    assert out['image'].dtype == np.float32
    levels = out['image'].reshape(B, -1).mean(1)
    expected = out['label'] @ (10.0 + np.arange(CLASSES))
    np.testing.assert_allclose(levels, expected, rtol=1e-4)
    whole = out['image'] == np.round(out['image'])
    is_cutmix.append(bool(whole.all()))
  assert 5 < sum(is_cutmix) < 25


def test_mixed_labels_can_be_mixed_again():
  twice = augment.chain(*[mixing.mixup(num_classes=CLASSES)] * 2)
  out = jax.jit(twice)(jax.random.key(0), BATCH)
  np.testing.assert_allclose(out['label'].sum(1), 1, rtol=1e-5)


def test_cutout_covers_a_square_that_may_be_partly_outside():
  areas = []
  for out in runs(mixing.cutout(size=4, mean=(200.4,)), 5):
    for image, whole in zip(out['image'], IMAGE):
      covered = image == 200
      assert (image[~covered] == whole[~covered]).all()
      rows, columns = np.nonzero(covered[..., 0])
      sides = (np.ptp(rows) + 1, np.ptp(columns) + 1)
      assert len(rows) == sides[0] * sides[1]
      areas.append(len(rows))
  # Each image has its own square; in a corner, 2 of 4 rows and columns remain.
  assert set(areas) <= {2 * 2, 2 * 3, 3 * 3, 2 * 4, 3 * 4, 4 * 4}
  assert len(set(areas)) > 3


def test_another_augmentation_can_replace_crop_and_flip():
  """Here it takes corners of 6 pixels; each image comes twice."""

  def corner(rng, batch):
    del rng
    return {**batch, 'image': batch['image'][:, :6, :6]}

  function = augment.repeated(
    mixing.regularized(augment=corner, mix=mixing.mixup(num_classes=CLASSES)),
    count=2,
  )
  out = jax.jit(function)(jax.random.key(0), BATCH)
  assert out['image'].shape == (B, 6, 6, 1)
  # The first eight images remain, so later classes have weight 0.
  np.testing.assert_array_equal(out['label'][:, B // 2 :], 0)
  np.testing.assert_allclose(out['label'].sum(1), 1, rtol=1e-5)


def test_a_recipe_standardises_last_and_has_mixed_labels(dataset):
  """The loss of a mixed example is the mixture of the losses."""
  function = mixing.regularized(
    policy=autoaugment.autoaugment(),
    cutout=mixing.cutout(size=2, mean=dataset.mean),
    mix=mixing.cutmix(num_classes=3, probability=1.0),
  )
  task = classification()
  recipe = recipes.recipe(
    dataset, task, epochs=1, batch_size=8, augment=function
  )
  image, label = (recipe.example[k] for k in ('image', 'label'))
  assert (image.shape, image.dtype) == ((8, 8, 8, 1), np.float32)
  assert (label.shape, label.dtype) == ((8, 3), np.float32)
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  batch = jax.jit(recipe.stream.augment)(jax.random.key(1), raw)
  assert np.abs(batch['image']).max() < 4
  logits = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
  each = np.stack(
    [task.loss(logits, {'label': np.full(8, c)}) for c in range(3)], 1
  )
  np.testing.assert_allclose(
    task.loss(logits, batch), (each * batch['label']).sum(1), rtol=1e-5
  )


@pytest.mark.parametrize(
  ('function', 'words'),
  [
    (lambda: mixing.cutmix(num_classes=3, alpha=0.0), r'alpha: .* got 0\.0'),
    (
      lambda: mixing.cutmix(num_classes=3, probability=1.5),
      r'probability: .* got 1\.5',
    ),
    (lambda: mixing.alternate(num_classes=3, share=-1), r'share: .* got -1'),
    (
      lambda: mixing.alternate(num_classes=3, mixup_alpha=0.0),
      r'alpha: .* got 0\.0',
    ),
    (
      lambda: mixing.mixup(num_classes=3, alpha=float('nan')),
      'alpha: .* got nan',
    ),
    (lambda: mixing.cutout(size=0, mean=(0.0,)), 'size: .* got 0'),
    (lambda: mixing.regularized(padding=-1), 'padding: .* got -1'),
  ],
)
def test_wrong_choices_are_rejected(function, words):
  with pytest.raises(UsageError, match=words):
    function()
