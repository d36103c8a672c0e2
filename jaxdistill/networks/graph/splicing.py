"""Replaces stages of a network, and selects and merges their variables."""

from collections.abc import Collection, Iterable
from typing import Any

import jax
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, PyTree, Stage, Variables
from jaxdistill.networks.graph import naming


def splice(model: Model, start: str, stop: str, part: Model) -> Model:
  """Replaces a range of stages and their variables.

  Args:
    model: the network to change and its variables.
    start: the first stage to replace.
    stop: the last stage to replace, at or after `start`.
    part: the replacement, any number of stages, which may be zero. If the name
      of one of them is taken by a stage that remains, a number is appended.

  Returns:
    The changed model.

  Raises:
    UsageError: a name is not a stage, `stop` comes before `start`, or a later
      stage reads a replaced one by name, or it is a named output.
  """
  names = naming.stage_names(model.network)
  naming.check_stages(model.network, (start, stop))
  first, last = names.index(start), names.index(stop)
  if last < first:
    raise UsageError(f'stage {stop!r} comes before stage {start!r}')
  kept = set(names) - set(names[first : last + 1])
  new_names: dict[str, str] = {}
  for name in naming.stage_names(part.network):
    new_names[name] = _free_name(name, kept | set(new_names.values()))

  def renamed(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(new_names.get(name, name) for name in names)

  stages = tuple(
    s._replace(
      name=new_names[s.name],
      inputs=renamed(s.inputs),
      optional=renamed(s.optional),
    )
    for s in part.network.stages
  )
  before, after = model.network.stages[:first], model.network.stages[last + 1 :]
  network = model.network._replace(stages=before + stages + after)
  _check_readers(model.network, network, after)
  part_variables = {
    collection: {new_names[k]: v for k, v in tree.items()}
    for collection, tree in part.variables.items()
  }
  return Model(network, merge(select(model.variables, kept), part_variables))


def select(variables: Variables, names: Iterable[str]) -> Variables:
  """Returns the variables of the named stages."""
  names = set(names)
  return {
    collection: {k: v for k, v in tree.items() if k in names}
    for collection, tree in variables.items()
  }


def same_modules(
  student: Network,
  student_stages: Iterable[str],
  teacher: Network,
  teacher_stages: Iterable[str],
) -> bool:
  """Returns whether stages of two networks have equal modules, in order.

  Args:
    student: one network.
    student_stages: the names of its stages.
    teacher: the other network.
    teacher_stages: the names of its stages.
  """
  return _modules(student, student_stages) == _modules(teacher, teacher_stages)


def merge(variables: Variables, updates: Variables) -> Variables:
  """Returns `variables` with the stages that `updates` holds replaced."""
  merged = dict(variables)
  for collection, tree in updates.items():
    merged[collection] = {**variables.get(collection, {}), **tree}
  return merged


def count_parameters(tree: PyTree) -> int:
  """Returns how many values {'params': ...} holds, batch statistics aside."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree['params']))


def count_nonzero(tree: PyTree) -> int:
  """Returns how many of the values of {'params': ...} are not zero."""
  return sum(int(np.count_nonzero(x)) for x in jax.tree.leaves(tree['params']))


def _modules(network: Network, names: Iterable[str]) -> list[Any]:
  """Returns the modules of some stages, and what they do to images first."""
  names = set(names)
  return [(s.module, s.image) for s in network.stages if s.name in names]


def _check_readers(
  network: Network, spliced: Network, later: Iterable[Stage]
) -> None:
  """Raises a UsageError if a stage or a task reads a feature that is gone."""
  # Inputs may name a stage, its group, or a feature from within either.
  names = {*naming.stage_names(network), *naming.groups(network)}
  gone = names - {*naming.stage_names(spliced), *naming.groups(spliced)}
  readers = {f'stage {stage.name!r}': stage.inputs for stage in later}
  for reader, inputs in {**readers, 'the task': network.outputs}.items():
    lost = [i for i in inputs if any(f'{i}.'.startswith(f'{g}.') for g in gone)]
    if lost:
      raise UsageError(f'{reader} reads replaced {sorted(lost)}')


def _free_name(name: str, taken: Collection[str]) -> str:
  """Returns the name, with a number appended if it is taken."""
  free, n = name, 1
  while free in taken:
    n += 1
    free = f'{name}_{n}'
  return free
