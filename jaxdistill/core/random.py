"""Random keys that are named after their purpose.

JAX derives a new key from an old key and a number. If each caller chose its own
numbers, two callers could choose the same one and draw the same random numbers.
Therefore callers do not choose numbers: every use of randomness within a
training step has a name in `STEP_USES`, and its number is its position in that
list.

A key depends only on the seed, the phase and the step. That is why a resumed
run ends with the same bits as a run that was never stopped.
"""

from typing import Literal, get_args

import jax

from jaxdistill.core.types import Array

StepUse = Literal['augment', 'dropout', 'adapters', 'validation', 'noise']
STEP_USES: tuple[str, ...] = get_args(StepUse)
# Larger than the number of any phase of a method.
_MODELS = 1 << 16
_VIEWS = _MODELS + 1
# Larger than the number of any stage, from which networks make their own keys.
_INITIALIZER = 1 << 16
_SIMILAR_STUDENT = _INITIALIZER + 1


def phase_keys(seed: int, order: int) -> tuple[Array, Array]:
  """Returns the two keys of a phase: one for its `init`, one for its steps.

  Args:
    seed: the seed of the run.
    order: the position of the phase in its method, from 0.
  """
  init_rng, step_rng = jax.random.split(
    jax.random.fold_in(jax.random.key(seed), order)
  )
  return init_rng, step_rng


def model_key(seed: int) -> Array:
  """Returns the key for the initial weights of a run's models.

  Args:
    seed: the seed of the run.
  """
  return jax.random.fold_in(jax.random.key(seed), _MODELS)


def similar_student_key(rng: Array) -> Array:
  """Returns the key for a student that has the same variables as its teacher.

  It makes them begin with different values.

  Args:
    rng: the key of `model_key`.
  """
  return jax.random.fold_in(rng, _SIMILAR_STUDENT)


def initializer_key(rng: Array) -> Array:
  """Returns the key for an initializer that draws a model's kernels again.

  Args:
    rng: the key from which the model's first weights were drawn.
  """
  return jax.random.fold_in(rng, _INITIALIZER)


def step_key(rng: Array, use: StepUse, index: int = 0) -> Array:
  """Returns the key for one use of randomness in a training step.

  Args:
    rng: the key of the step, which the phase's `step` receives.
    use: the purpose of the key.
    index: distinguishes several uses with one name, such as the streams of a
      phase.
  """
  key = jax.random.fold_in(rng, STEP_USES.index(use))
  return jax.random.fold_in(key, index)


def view_key(index: Array, view: Array) -> Array:
  """Returns the key that makes a view of an image.

  It does not depend on the seed of a run, so that all runs share the views.

  Args:
    index: the 'index' of the image in the data set, `[]`.
    view: the number of the view, `[]`.
  """
  key = jax.random.fold_in(jax.random.key(0), _VIEWS)
  return jax.random.fold_in(jax.random.fold_in(key, index), view)
