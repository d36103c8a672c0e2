"""The scores of the task `depth`, and the depths that its networks see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import layers
from jaxdistill.tasks import evaluation
from jaxdistill.tasks.depth import depth


def test_an_image_without_any_known_depth_does_not_improve_the_score():
  task = depth()
  true = np.full((2, 4, 4), 2.0, np.float32)
  true[1] = 0.0  # nothing is known about the second image
  outputs = np.full((2, 4, 4, 1), 3.0, np.float32)
  rows = {
    k: np.asarray(v)
    for k, v in task.statistics(outputs, {'depth': true}).items()
  }
  metrics = task.summarize(rows)
  assert metrics['rmse'] == pytest.approx(1.0)
  assert metrics['abs_rel'] == pytest.approx(0.5)
  assert 'known' not in metrics


RNG = np.random.default_rng(0)
COLUMNS = {
  'image': RNG.integers(0, 256, (9, 6, 8, 3), np.uint8),
  'depth': RNG.uniform(1, 9, (9, 6, 8)).astype(np.float32),
}
COLUMNS['depth'][:, :2] = 0
COLUMNS['depth'][1] = 0
COLUMNS['depth'][1, 4, :3] = 2.0


def sampled(columns, task, key=0):
  """The channel of samples of a batch, as evaluation makes it."""
  data = jd.data.from_columns(COLUMNS, COLUMNS, validation=0)
  preprocess = jd.preprocess(data, jd.data.none(), task)
  batch = jax.jit(preprocess)(jax.random.key(key), columns)
  assert batch['image'].shape == (len(columns['index']), 6, 8, 4)
  return np.asarray(batch['image'][..., 3])


def test_networks_see_samples_of_the_true_depths():
  columns = {**COLUMNS, 'index': np.arange(9, dtype=np.int32)}
  channel = sampled(columns, depth(samples=5))
  seen = channel > 0
  np.testing.assert_array_equal(channel[seen], COLUMNS['depth'][seen])
  counts = seen.sum((1, 2)).tolist()
  assert counts == [5, 3, *[5] * 7]  # the second image knows only three
  # The places depend on the image, not on its neighbours in the batch.
  part = {name: x[4:7] for name, x in columns.items()}
  np.testing.assert_array_equal(sampled(part, depth(samples=5)), channel[4:7])
  assert (sampled(columns, depth(samples=5), key=1) != channel).any()


def test_copies_of_an_image_in_a_batch_see_other_samples():
  rows = np.array([2, 2, 2, 5])
  columns = {name: x[rows] for name, x in COLUMNS.items()}
  columns['index'] = rows.astype(np.int32)
  channel = sampled(columns, depth(samples=5))
  whole = {**COLUMNS, 'index': np.arange(9, dtype=np.int32)}
  alone = sampled(whole, depth(samples=5))
  np.testing.assert_array_equal(channel[[0, 3]], alone[[2, 5]])
  for i, j in ((0, 1), (0, 2), (1, 2)):
    assert (channel[i] != channel[j]).any()


def test_training_and_evaluation_see_the_same_channels():
  data = jd.data.from_columns(COLUMNS, COLUMNS, validation=3)
  task = depth(samples=4)
  recipe = jd.recipe(
    data, task, epochs=1, batch_size=2, augment=jd.data.scale_crop(size=(4, 4))
  )
  assert recipe.example['image'].shape == (2, 4, 4, 4)

  network = jd.Network((jd.Stage('head', layers.ConvUnit(1)),))
  model = jd.new_model(network, recipe)
  assert model.variables['params']['head']['conv']['kernel'].shape[2] == 4
  preprocess = jd.preprocess(data, jd.data.none(), task)
  metrics = [
    evaluation.evaluate(
      model, data.splits['test'], task, preprocess, batch_size=n
    )
    for n in (9, 2)
  ]
  assert metrics[0]['rmse'] == pytest.approx(metrics[1]['rmse'], rel=1e-5)


def test_a_network_with_several_channels_of_outputs_is_refused():
  batch = {'depth': jnp.ones((2, 4, 4))}
  with pytest.raises(
    UsageError, match='one channel of outputs, got 5; set num'
  ):
    depth().loss(jnp.ones((2, 4, 4, 5)), batch)


@pytest.mark.parametrize(
  'outputs', [jnp.ones((2, 5)), {'head': jnp.ones((2, 4, 4, 1))}]
)
def test_a_network_whose_output_is_no_single_map_is_refused(outputs):
  batch = {'depth': jnp.ones((2, 4, 4))}
  with pytest.raises(UsageError, match=r'map \[B, h, w, 1\], .* got .*\[2, '):
    depth().loss(outputs, batch)


def test_whole_millimetres_are_refused_with_the_remedy():
  columns = {**COLUMNS, 'depth': COLUMNS['depth'].astype(np.uint16)}
  data = jd.data.from_columns(columns, columns)
  with pytest.raises(UsageError, match='got uint16; divide whole millimetres'):
    depth().check(data)


def test_samples_without_depths_are_refused():
  task = depth(samples=4)
  with pytest.raises(UsageError, match='expected depths beside the images'):
    task.prepare(jax.random.key(0), {'image': jnp.zeros((1, 4, 4, 3))})
  with pytest.raises(UsageError, match='samples: expected at most 48'):
    sampled({**COLUMNS, 'index': np.arange(9)}, depth(samples=49))
  with pytest.raises(UsageError, match='samples: expected'):
    depth(samples=-1)
  images = {'image': COLUMNS['image']}
  data = jd.data.from_columns(images, images)
  with pytest.raises(UsageError, match="expected 'depth', which the task 'dep"):
    jd.recipe(data, task, epochs=1, batch_size=2)
