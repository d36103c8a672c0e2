"""Generated scenes, whose masks and depths belong together."""

import itertools

import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError


def make(**keys):
  return jd.data.scenes(num_train=20, num_test=10, size=(24, 32), **keys)


def test_masks_and_depths_suit_the_images_of_both_tasks():
  data = make(validation=5)
  for task in (jd.tasks.segmentation(), jd.tasks.depth()):
    jd.recipe(data, task, epochs=1, batch_size=4)
  sizes = {name: len(split['image']) for name, split in data.splits.items()}
  assert sizes == {'train': 15, 'validation': 5, 'test': 10}
  assert set(np.unique(data.splits['train']['mask'])) == set(range(5))


def test_things_are_nearer_than_what_they_hide():
  split = make().splits['train']
  floor, things = split['mask'] == 0, split['mask'] >= 2
  wall = split['depth'].max((1, 2), keepdims=True)
  assert (
    split['depth'][things] < np.broadcast_to(wall, things.shape)[things]
  ).all()
  # The floor comes nearer from the horizon to the lower edge.
  for depth, is_floor in zip(split['depth'], floor):
    rows = [depth[i][is_floor[i]] for i in range(24) if is_floor[i].any()]
    assert all(a.min() >= b.max() for a, b in itertools.pairwise(rows))


def test_the_seed_chooses_the_scenes():
  first, again, other = make(seed=1), make(seed=1), make(seed=2)
  image = first.splits['test']['image']
  np.testing.assert_array_equal(image, again.splits['test']['image'])
  assert (image != other.splits['test']['image']).any()
  assert (first.splits['train']['image'][0] != image[0]).any()


def test_sizes_out_of_range_are_refused():
  with pytest.raises(UsageError, match=r'size: expected .* at least 16, got 8'):
    jd.data.scenes(size=(8, 32))
  with pytest.raises(UsageError, match='num_test: expected'):
    jd.data.scenes(num_test=0)
