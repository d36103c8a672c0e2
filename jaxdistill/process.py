"""Processes of DistPro: weights of pathways that change while a student trains.

Eq. 2 -> `biased_softmax`. A process is found for one length of training and
replayed in another; see `methods.distpro`.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.types import Array, UsageError

_FORMAT = 'jaxdistill process 1'


class Pathway(NamedTuple):
  """A transform from a student's feature into a teacher's.

  Attributes:
    student: name of the feature.
    teacher: name of the feature.
    transform: name of the transform.
    student_level: which of the student's features it is, from 1, the
      shallowest.
    teacher_level: the same.
  """

  student: str
  teacher: str
  transform: str
  student_level: int
  teacher_level: int

  @property
  def place(self) -> tuple[int, int, str]:
    """What must agree between two networks: (i, j, k) of the paper."""
    return self.teacher_level, self.student_level, self.transform

  def __str__(self) -> str:
    """'teacher 1 -> student 2 by T1'."""
    return (
      f'teacher {self.teacher_level} -> student {self.student_level} by '
      f'{self.transform}'
    )


class Process(NamedTuple):
  """Weights of pathways at some steps of a training.

  Attributes:
    pathways: L of them.
    steps: where the knots stand, increasing, `[K]`.
    num_steps: length of the training they are steps of.
    raw: before normalisation, `[K, L]`.
    weights: after it, `[K, L]`.
    about: what it was found with, as JSON.
  """

  pathways: tuple[Pathway, ...]
  steps: np.ndarray
  num_steps: int
  raw: np.ndarray
  weights: np.ndarray
  about: Mapping[str, Any] = {}


def biased_softmax(raw: Array) -> Array:
  """Softmax with one more entry that is always 1, and left out.

    exp(raw_i) / (sum_j exp(raw_j) + exp(1))

  Equation (2) of DistPro, with g = 1.

  Args:
    raw: `[L]`.

  Returns:
    Weights that sum to less than 1, `[L]`.
  """
  return jax.nn.softmax(jnp.append(raw, 1.0))[:-1]


def softmax(raw: Array) -> Array:
  """exp(raw_i) / sum_j exp(raw_j)."""
  return jax.nn.softmax(raw)


def biased_l1(raw: Array) -> Array:
  """raw_i / (sum_j |raw_j| + 1)."""
  return raw / (jnp.abs(raw).sum() + 1)


def l1(raw: Array) -> Array:
  """raw_i / sum_j |raw_j|."""
  return raw / jnp.abs(raw).sum()


def sigmoid(raw: Array) -> Array:
  """1 / (1 + exp(-raw_i))."""
  return jax.nn.sigmoid(raw)


# The rows of the paper's Table 7.
NORMALIZATIONS: dict[str, Callable[[Array], Array]] = {
  'biased_softmax': biased_softmax,
  'softmax': softmax,
  'biased_l1': biased_l1,
  'l1': l1,
  'sigmoid': sigmoid,
}


def at(process: Process, share: Any) -> tuple[Array, Array]:
  """The process stretched to a training of any length, linear between knots.

  Args:
    process: the knots; before the first and after the last it is constant.
    share: of the training that lies behind, in [0, 1], `[...]`.

  Returns:
    (raw, weights), `[..., L]`.
  """
  place = jnp.asarray(share, jnp.float32) * (process.num_steps - 1)
  steps = jnp.asarray(process.steps, jnp.float32)

  def between(knots: np.ndarray) -> Array:
    columns = jnp.asarray(knots, jnp.float32).T
    along = jax.vmap(lambda values: jnp.interp(place, steps, values))(columns)
    return jnp.moveaxis(along, 0, -1)

  return between(process.raw), between(process.weights)


def last(process: Process) -> Process:
  """The last weights at every step, the paper's 'Use alpha_T'."""
  return process._replace(
    steps=process.steps[-1:],
    raw=process.raw[-1:],
    weights=process.weights[-1:],
  )


def equal(pathways: Sequence[Pathway]) -> Process:
  """1 / L for each of L pathways at every step."""
  raw = np.ones((1, len(pathways)), np.float32)
  return Process(tuple(pathways), np.zeros(1), 1, raw, raw / len(pathways))


def masked(raw: Array, weights: Array, threshold: float | None) -> Array:
  """The weights, zero where the raw ones are not above the threshold.

  What is left is not normalised again.
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
  """Which pathways have a weight anywhere in each part of a training.

  Args:
    process: stretched to the training.
    num_steps: of the training.
    threshold: pathways are dropped where their raw weight is not above it;
      None: nowhere.
    segments: equal parts of the training.

  Returns:
    For each part the places of its pathways in the process.
  """
  everything = tuple(range(len(process.pathways)))
  if threshold is None:
    return (everything,)
  share = np.arange(num_steps) / max(1, num_steps - 1)
  above = np.asarray(at(process, share)[0]) > threshold
  parts = np.array_split(above, min(segments, num_steps))
  return tuple(tuple(np.flatnonzero(p.any(0)).tolist()) for p in parts)


def set_at(
  sets: Sequence[tuple[int, ...]], step: int, num_steps: int
) -> tuple[int, ...]:
  """The one of `active_sets` whose part of the training a step is in."""
  size, longer = divmod(num_steps, len(sets))  # as np.array_split cuts
  first = step // (size + 1)
  if first < longer:
    return sets[first]
  return sets[longer + (step - longer * (size + 1)) // size]


def check_layout(process: Process, pathways: Sequence[Pathway]) -> None:
  """Raises UsageError at the first pathway that is not that of the process.

  A process goes over to other networks and data where levels and transforms
  agree, pathway by pathway; names of features may differ.
  """
  if len(process.pathways) != len(pathways):
    raise UsageError(
      f'the process has {len(process.pathways)} pathways, and these networks '
      f'have {len(pathways)} in this space; choose the space of the search'
    )
  for number, (there, here) in enumerate(zip(process.pathways, pathways)):
    if there.place != here.place:
      raise UsageError(
        f'pathway {number} of the process is {there} and that of the networks '
        f'{here}: choose the space of the search'
      )


def to_arrays(process: Process) -> dict[str, Any]:
  """What a carry holds of a process; the pathways as the bytes of JSON."""
  pathways = json.dumps(_listed(process.pathways)).encode()
  return {
    'pathways': np.frombuffer(pathways, np.uint8),
    'steps': process.steps,
    'num_steps': np.int32(process.num_steps),
    'raw': process.raw,
    'weights': process.weights,
  }


def from_arrays(arrays: Mapping[str, Any]) -> Process:
  """The process that `to_arrays` made."""
  pathways = json.loads(np.asarray(arrays['pathways']).tobytes())
  steps, raw, weights = (
    np.asarray(arrays[key]) for key in ('steps', 'raw', 'weights')
  )
  paths = tuple(Pathway(*entry) for entry in pathways)
  return Process(paths, steps, int(arrays['num_steps']), raw, weights)


def to_json(process: Process) -> dict[str, Any]:
  """The process as JSON."""
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
  return [list(pathway) for pathway in pathways]


def from_json(content: Any, name: str = 'process') -> Process:
  """The process that `to_json` made.

  Args:
    content: JSON.
    name: what messages call it.

  Raises:
    UsageError: it is no process, or its parts do not fit each other.
  """
  if not isinstance(content, Mapping) or content.get('format') != _FORMAT:
    raise UsageError(f'{name}: is no process (format {_FORMAT!r})')
  try:
    pathways = tuple(Pathway(*entry) for entry in content['pathways'])
    steps, raw, weights = (
      np.asarray(content[key], np.float32)
      for key in ('steps', 'raw', 'weights')
    )
    num_steps = int(content['num_steps'])
    about = dict(content['about'])
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise UsageError(f'{name}: is no whole process ({error!r})') from None
  shape = (steps.size, len(pathways))
  for key, knots in (('raw', raw), ('weights', weights)):
    if knots.shape != shape or not np.isfinite(knots).all():
      raise UsageError(
        f'{name}: {key} {knots.shape} is not a number for each of {shape[0]} '
        f'steps and {shape[1]} pathways'
      )
  rising = np.diff(np.append(steps, num_steps)) > 0
  if steps.ndim != 1 or not steps.size or not rising.all() or steps[0] < 0:
    raise UsageError(
      f'{name}: the steps are no list that increases from 0 to below '
      f'{num_steps}, the steps of the search'
    )
  return Process(pathways, steps, num_steps, raw, weights, about)


def load(path: str | os.PathLike) -> Process:
  """Reads a process file.

  Raises:
    UsageError: it is no .json file, there is none, or it is no process.
  """
  file = pathlib.Path(path).expanduser()
  if file.suffix != '.json':  # which a work directory tells by its content
    raise UsageError(f'process: wanted a .json file, got {str(path)!r}')
  if not file.is_file():
    raise UsageError(f'process: no file {str(path)!r}')
  try:
    content = json.loads(file.read_text())
  except (OSError, ValueError) as error:
    raise UsageError(f'process: cannot read {str(path)!r} ({error})') from None
  return from_json(content, f'process {str(path)!r}')
