"""Processes of DistPro: weights of pathways that change during training.

A process is found in a search and then used in a training of another length;
see `method`. Equation 2 of the paper is `biased_softmax`.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array

_FORMAT = 'jaxdistill process 1'


class Pathway(NamedTuple):
  """A transform from a feature of the student to a feature of the teacher.

  Attributes:
    student: the name of the student's feature.
    teacher: the name of the teacher's feature.
    transform: the name of the transform.
    student_level: the number of the student's feature, counted from 1, the
      shallowest.
    teacher_level: the same for the teacher's feature.
  """

  student: str
  teacher: str
  transform: str
  student_level: int
  teacher_level: int

  @property
  def key(self) -> tuple[int, int, str]:
    """(i, j, k) of the paper, which must agree between pairs of networks."""
    return self.teacher_level, self.student_level, self.transform

  def __str__(self) -> str:
    """Returns, for example, 'teacher 1 -> student 2 by T1'."""
    return (
      f'teacher {self.teacher_level} -> student {self.student_level} by '
      f'{self.transform}'
    )


class Process(NamedTuple):
  """Weights of L pathways at K steps of a training, the knots.

  Attributes:
    pathways: the pathways.
    steps: the steps of the knots, increasing, `[K]`.
    num_steps: the length of the training that the steps belong to.
    raw: the weights before normalisation, `[K, L]`.
    weights: the weights after normalisation, `[K, L]`.
    about: the networks and data of the search, as JSON.
  """

  pathways: tuple[Pathway, ...]
  steps: np.ndarray
  num_steps: int
  raw: np.ndarray
  weights: np.ndarray
  about: Mapping[str, Any] = {}


def biased_softmax(raw: Array) -> Array:
  """Computes a softmax with one more entry, which is 1 and then left out.

    exp(raw_i) / (sum_j exp(raw_j) + exp(1))

  Equation (2) of DistPro, with g = 1.

  Args:
    raw: the raw weights, `[L]`.

  Returns:
    Weights that sum to less than 1, `[L]`.
  """
  return jax.nn.softmax(jnp.append(raw, 1.0))[:-1]


def softmax(raw: Array) -> Array:
  """Computes exp(raw_i) / sum_j exp(raw_j) of `[L]`."""
  return jax.nn.softmax(raw)


def biased_l1(raw: Array) -> Array:
  """Computes raw_i / (sum_j |raw_j| + 1) of `[L]`."""
  return raw / (jnp.abs(raw).sum() + 1)


def l1(raw: Array) -> Array:
  """Computes raw_i / sum_j |raw_j| of `[L]`."""
  return raw / jnp.abs(raw).sum()


def sigmoid(raw: Array) -> Array:
  """Computes 1 / (1 + exp(-raw_i)) of `[L]`."""
  return jax.nn.sigmoid(raw)


# The rows of the paper's Table 7.
NORMALIZATIONS: dict[str, Callable[[Array], Array]] = {
  'biased_softmax': biased_softmax,
  'softmax': softmax,
  'biased_l1': biased_l1,
  'l1': l1,
  'sigmoid': sigmoid,
}


def at(process: Process, progress: Any) -> tuple[Array, Array]:
  """Evaluates a process at a fraction of a training of any length.

  The weights are linear between knots, and constant before the first knot and
  after the last one.

  Args:
    process: the process.
    progress: the fraction of the training so far, in [0, 1], `[...]`.

  Returns:
    (raw, weights), `[..., L]`.
  """
  step = jnp.asarray(progress, jnp.float32) * (process.num_steps - 1)
  steps = jnp.asarray(process.steps, jnp.float32)

  def interpolated(knots: np.ndarray) -> Array:
    columns = jnp.asarray(knots, jnp.float32).T
    values = jax.vmap(lambda column: jnp.interp(step, steps, column))(columns)
    return jnp.moveaxis(values, 0, -1)

  return interpolated(process.raw), interpolated(process.weights)


def last(process: Process) -> Process:
  """Returns a process with the last weights at every step.

  This is 'Use alpha_T' in the paper.

  Args:
    process: the process.
  """
  return process._replace(
    steps=process.steps[-1:],
    raw=process.raw[-1:],
    weights=process.weights[-1:],
  )


def after(process: Process, start: float) -> Process:
  """Returns the part of a process that a search found after its beginning.

  Args:
    process: the process.
    start: where this part begins, as a fraction of the search in [0, 1).
  """
  begin = round(start * (process.num_steps - 1))
  if not begin:
    return process
  raw, weights = map(np.asarray, at(process, begin / (process.num_steps - 1)))
  later = process.steps > begin
  return process._replace(
    steps=np.append(0, process.steps[later] - begin),
    num_steps=process.num_steps - begin,
    raw=np.concatenate([raw[None], process.raw[later]]),
    weights=np.concatenate([weights[None], process.weights[later]]),
  )


def equal(pathways: Sequence[Pathway]) -> Process:
  """Returns a process with the weight 1 / L for all L pathways at every step.

  Args:
    pathways: the pathways.
  """
  raw = np.ones((1, len(pathways)), np.float32)
  return Process(tuple(pathways), np.zeros(1), 1, raw, raw / len(pathways))


def masked(raw: Array, weights: Array, threshold: float | None) -> Array:
  """Sets weights to zero where the raw weights are not above the threshold.

  The remaining weights are not normalised again.

  Args:
    raw: the weights before normalisation, `[L]`.
    weights: the weights after normalisation, `[L]`.
    threshold: the threshold; None changes nothing.
  """
  return (
    weights if threshold is None else jnp.where(raw > threshold, weights, 0)
  )


def active_sets(
  process: Process,
  num_steps: int,
  *,
  threshold: float | None,
  segments: int,
) -> tuple[tuple[int, ...], ...]:
  """Returns which pathways count at any step of each segment of a training.

  Args:
    process: the process.
    num_steps: the length of the training.
    threshold: a pathway is dropped at steps where its raw weight is not above
      it; None drops nothing.
    segments: the number of equal segments of the training.

  Returns:
    For each segment the indices of its pathways.
  """
  all_indices = tuple(range(len(process.pathways)))
  if threshold is None:
    return (all_indices,)
  progress = np.arange(num_steps) / max(1, num_steps - 1)
  above = np.asarray(at(process, progress)[0]) > threshold
  parts = np.array_split(above, min(segments, num_steps))
  return tuple(tuple(np.flatnonzero(p.any(0)).tolist()) for p in parts)


def set_at(
  sets: Sequence[tuple[int, ...]], step: int, num_steps: int
) -> tuple[int, ...]:
  """Returns the entry of `active_sets` for the segment that holds a step.

  Args:
    sets: the result of `active_sets`.
    step: the step.
    num_steps: the length of the training.
  """
  # np.array_split makes the first `longer` segments longer by one step.
  size, longer = divmod(num_steps, len(sets))
  first = step // (size + 1)
  if first < longer:
    return sets[first]
  return sets[longer + (step - longer * (size + 1)) // size]


def check_layout(process: Process, pathways: Sequence[Pathway]) -> None:
  """Checks that a process can be used with the pathways of two networks.

  It can be used with other networks and data than those of the search if the
  levels and the transform of each pathway agree. Names of features may differ.

  Args:
    process: the process.
    pathways: the pathways of the networks.

  Raises:
    UsageError: the numbers of pathways differ, or a pathway does.
  """
  if len(process.pathways) != len(pathways):
    raise UsageError(
      f'process: expected {len(pathways)} pathways, as the networks have in '
      f'this space, got {len(process.pathways)}; choose the space of the search'
    )
  for number, (searched, pathway) in enumerate(zip(process.pathways, pathways)):
    if searched.key != pathway.key:
      raise UsageError(
        f'process: expected pathway {number} to be {pathway}, as in the '
        f'networks, got {searched}; choose the space of the search'
      )


def to_arrays(process: Process) -> dict[str, Any]:
  """Turns a process into arrays for the carry.

  Pathways are stored as the bytes of JSON.

  Args:
    process: the process.
  """
  pathways = json.dumps(_listed(process.pathways)).encode()
  return {
    'pathways': np.frombuffer(pathways, np.uint8),
    'steps': process.steps,
    'num_steps': np.int32(process.num_steps),
    'raw': process.raw,
    'weights': process.weights,
  }


def from_arrays(arrays: Mapping[str, Any]) -> Process:
  """Undoes `to_arrays`.

  Args:
    arrays: the result of `to_arrays`.
  """
  pathways = json.loads(np.asarray(arrays['pathways']).tobytes())
  steps, raw, weights = (
    np.asarray(arrays[key]) for key in ('steps', 'raw', 'weights')
  )
  paths = tuple(Pathway(*entry) for entry in pathways)
  return Process(paths, steps, int(arrays['num_steps']), raw, weights)


def to_json(process: Process) -> dict[str, Any]:
  """Turns a process into JSON.

  Args:
    process: the process.
  """
  return {
    'format': _FORMAT,
    'pathways': _listed(process.pathways),
    'steps': np.asarray(process.steps, float).tolist(),
    'num_steps': int(process.num_steps),
    'raw': np.asarray(process.raw, float).tolist(),
    'weights': np.asarray(process.weights, float).tolist(),
    'about': dict(process.about),
  }


def _listed(pathways: Sequence[Pathway]) -> list[list[Any]]:
  """Turns pathways into JSON."""
  return [list(pathway) for pathway in pathways]


def from_json(content: Any, name: str = 'process') -> Process:
  """Undoes `to_json`.

  Args:
    content: the JSON.
    name: what messages call it.

  Raises:
    UsageError: it is not a process, or its parts do not fit each other.
  """
  if not isinstance(content, Mapping) or content.get('format') != _FORMAT:
    raise UsageError(
      f'{name}: expected the content of a process file (format {_FORMAT!r})'
    )
  try:
    pathways = tuple(Pathway(*entry) for entry in content['pathways'])
    steps, raw, weights = (
      np.asarray(content[key], np.float32)
      for key in ('steps', 'raw', 'weights')
    )
    num_steps = int(content['num_steps'])
    about = dict(content['about'])
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise UsageError(
      f'{name}: expected a complete process, but {error!r}'
    ) from None
  shape = (steps.size, len(pathways))
  for key, knots in (('raw', raw), ('weights', weights)):
    if knots.shape != shape or not np.isfinite(knots).all():
      raise UsageError(
        f'{name}: expected {key} to hold finite numbers for {shape[0]} steps '
        f'and {shape[1]} pathways, got the shape {knots.shape}'
      )
  rising = np.diff(np.append(steps, num_steps)) > 0
  if steps.ndim != 1 or not steps.size or not rising.all() or steps[0] < 0:
    raise UsageError(
      f'{name}: expected increasing steps from 0 to below {num_steps}, the '
      f'number of steps of the search, got {steps.tolist()}'
    )
  return Process(pathways, steps, num_steps, raw, weights, about)


def load(path: str | os.PathLike) -> Process:
  """Reads a process file.

  Args:
    path: the file, such as 'process.json'.

  Raises:
    UsageError: it is not a .json file, does not exist, or is not a process.
  """
  file = pathlib.Path(path).expanduser()
  # A work directory copies .json files as part of its content.
  if file.suffix != '.json':
    raise UsageError(f'process: expected a .json file, got {str(path)!r}')
  if not file.is_file():
    raise UsageError(f'process: the file {str(path)!r} does not exist')
  try:
    content = json.loads(file.read_text())
  except (OSError, ValueError) as error:
    raise UsageError(f'process: cannot read {str(path)!r} ({error})') from None
  return from_json(content, f'process {str(path)!r}')
