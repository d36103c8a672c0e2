"""Random keys: no two uses share one, and each depends only on its name."""

import itertools

import jax
import numpy as np

from jaxdistill.core import random


def bits(key):
  return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_no_two_uses_of_a_step_share_a_key():
  rng = jax.random.key(0)
  keys = [
    bits(random.step_key(rng, use, index))
    for use, index in itertools.product(random.STEP_USES, range(8))
  ]
  assert len(set(keys)) == len(keys)


def test_phases_and_models_of_a_run_have_different_keys():
  keys = [bits(random.model_key(0)), bits(random.model_key(1))]
  # Networks make the keys of their stages from a model's key.
  for rng in (random.model_key(0), random.model_key(1)):
    keys += [bits(jax.random.fold_in(rng, stage)) for stage in range(60)]
    keys += [bits(random.similar_student_key(rng))]
    keys += [bits(random.initializer_key(rng))]
  for seed, order in itertools.product(range(2), range(4)):
    keys += [bits(key) for key in random.phase_keys(seed, order)]
  assert len(set(keys)) == len(keys)


def test_a_key_depends_only_on_the_name_and_the_index():
  rng = jax.random.key(3)
  assert bits(random.step_key(rng, 'noise', 2)) == bits(
    random.step_key(rng, 'noise', 2)
  )
