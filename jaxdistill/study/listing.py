"""Lists of the names that a config may use, with a line about each."""

from collections.abc import Callable
import inspect
from typing import Any

from jaxdistill.core import checks

# What can be listed -> the table of the registry; pretrained teachers have one
# of their own.
KINDS = {
  'teachers': '',
  'networks': 'NETWORKS',
  'methods': 'METHODS',
  'objectives': 'OBJECTIVES',
  'tasks': 'TASKS',
  'data': 'DATASETS',
  'augmentations': 'AUGMENTS',
  'optimizers': 'OPTIMIZERS',
  'schedules': 'SCHEDULES',
  'prunings': 'PRUNINGS',
}


def names(kind: str) -> list[str]:
  """Returns one line for each name: the name and what it stands for.

  Args:
    kind: what to list.

  Raises:
    UsageError: there is no such kind.
  """
  checks.choice('kind of name', kind, KINDS)
  if kind == 'teachers':
    from jaxdistill.networks.weights import sources  # imports JAX

    return sources.lines()
  from jaxdistill.study import registry  # imports JAX

  table = getattr(registry, KINDS[kind])
  width = max(map(len, table))
  return [f'{name:{width}}  {_summary(table[name])}' for name in sorted(table)]


def _summary(function: Callable[..., Any]) -> str:
  """Returns the first line of a docstring, after the arguments it is given."""
  arguments: list[str] = []
  while hasattr(function, 'func'):  # a functools.partial
    partial: Any = function
    given = [*map(repr, partial.args)]
    given += [f'{key}={value!r}' for key, value in partial.keywords.items()]
    arguments, function = [*given, *arguments], partial.func
  line = (inspect.getdoc(function) or '').partition('\n')[0]
  call = f'{function.__name__}({", ".join(arguments)}): ' if arguments else ''
  return f'{call}{line}'
