"""Distillation on noise, and on images made from the teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.methods import data_free
from jaxdistill.networks import layers
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

SILENT = loop.Options(log=log.Log(show=False))


def _fit(method, carry, dataset):
  return loop.fit(method, carry, dataset, options=SILENT)


def test_noise_teaches_whatever_the_images_are(
  recipe, student, teacher, dataset
):
  """And with frozen statistics none of them moves."""
  carry = {'student': student, 'teacher': teacher}
  black = dataset._replace(
    splits={
      **dataset.splits,
      'train': {
        **dataset.splits['train'],
        'image': 0 * dataset.splits['train']['image'],
      },
    }
  )
  method = data_free.gaussian_kd(recipe, frozen_statistics=True)
  ends = [_fit(method, carry, d).carry['student'] for d in (dataset, black)]
  jax.tree.map(np.testing.assert_array_equal, *(end.variables for end in ends))
  jax.tree.map(
    np.testing.assert_array_equal,
    ends[0].variables['batch_stats'],
    student.variables['batch_stats'],
  )
  head = ends[0].variables['params']['head']['linear']['kernel']
  assert (head != student.variables['params']['head']['linear']['kernel']).any()


@pytest.fixture(scope='module')
def impressions(recipe, student, teacher):
  """The phase of two batches of 8 images, 30 steps each, run by hand."""
  method = data_free.zero_shot(
    recipe, count=16, iterations=30, batch=8, rate=0.05, temperature=1.0
  )
  carry = {'student': student, 'teacher': teacher}
  phase = method[0](carry)
  assert (phase.num_steps, phase.streams) == (60, {})
  state, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None))
  states, found = [], []
  for i in range(60):
    rng = jax.random.fold_in(jax.random.key(1), i)
    state, metrics = step(state, frozen, {}, rng)
    states.append(state)
    found.append(float(metrics['loss']))
  return phase, states, found, carry


def test_images_come_to_give_the_teacher_the_drawn_answers(impressions):
  _, states, found, _ = impressions
  for first in (0, 30):
    target = states[first].target
    np.testing.assert_allclose(target.sum(1), 1.0, rtol=1e-5)
    assert found[first + 29] < found[first]
  assert (states[0].target != states[30].target).any()


def test_each_batch_has_its_place_and_every_image_its_whole_range(impressions):
  phase, states, _, carry = impressions
  end = states[-1]
  for place, state in ((slice(8), states[29]), (slice(8, 16), end)):
    levels = np.asarray(end.images[place], np.float32) / 255
    np.testing.assert_allclose(levels, state.image, atol=0.5 / 255 + 1e-6)
  np.testing.assert_array_equal(end.labels[:8], states[29].label)
  assert (end.images.min((1, 2, 3)) == 0).all()
  assert (end.images.max((1, 2, 3)) == 255).all()
  made = phase.finish(end, (), carry)['impressions']
  assert made['image'].dtype == np.uint8
  np.testing.assert_array_equal(made['index'], np.arange(16))


def test_similar_classes_are_drawn_together():
  """Weights at 0, 45 and 90 degrees; each row of cosines scaled to [0, 1]."""
  weights = jnp.array([[1.0, 2.0, 0.0], [0.0, 2.0, 3.0]])
  half = 0.5**0.5
  np.testing.assert_allclose(
    data_free._similarities(weights),
    [[1, half, 0], [0, 1, 0], [0, half, 1]],
    atol=1e-6,
  )


def test_a_student_learns_from_the_images_alone(
  recipe, student, teacher, dataset
):
  method = data_free.zero_shot(recipe, count=16, iterations=2, batch=8)
  carry = {'student': student, 'teacher': teacher}
  black = {**dataset.splits['train']}
  black['image'] = 0 * black['image']
  other = dataset._replace(splits={**dataset.splits, 'train': black})
  fitted, same = (_fit(method, carry, d) for d in (dataset, other))
  jax.tree.map(
    np.testing.assert_array_equal,
    fitted.carry['student'].variables,
    same.carry['student'].variables,
  )
  head = fitted.carry['student'].variables['params']['head']['linear']
  before = student.variables['params']['head']['linear']
  assert (head['kernel'] != before['kernel']).any()
  assert set(fitted.carry) == {'student', 'teacher', 'impressions'}
  # 4 steps make images; two epochs of 16 images in batches of 8 follow.
  assert fitted.steps == 4 + 4


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'count': 16, 'batch': 5}, 'batch: 5 does not divide count, 16'),
    ({'count': 4, 'batch': 2}, 'fewer than batch_size, 8'),
    ({'iterations': 0}, 'iterations: wanted whole numbers above 0, got 0'),
    ({'scales': (0.0,)}, 'scales: wanted numbers above 0'),
  ],
)
def test_numbers_that_are_none_are_refused(recipe, arguments, message):
  with pytest.raises(UsageError, match=message):
    data_free.zero_shot(recipe, **arguments)


def test_a_teacher_without_a_linear_end_is_refused(recipe, student):
  ends = Network(
    (Stage('stem', layers.ConvUnit(3)), Stage('pool', layers.Pool()))
  )
  model = Model(ends, {'params': {'stem': {}}})
  method = data_free.zero_shot(recipe, count=16, batch=8)
  with pytest.raises(UsageError, match="last stage 'pool' is no single linear"):
    method[0]({'student': student, 'teacher': model})
