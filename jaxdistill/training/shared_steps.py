"""One step for several runs whose steps differ only in numbers.

The steps of rows, or of a sweep's trials, may be the same but for a learning
rate, a weight or a temperature. These numbers are constants of the traced
programs. Where the programs have different constants in the same place, the
shared step takes an argument instead.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import itertools
from typing import Any, NamedTuple

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.types import Array, PyTree

# Equations that call a program -> the parameter that holds it. A call is read
# and computed as if the equations of the program stood in its place.
_CALLS = {
  'jit': 'jaxpr',
  'closed_call': 'call_jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
}


# Takes the arguments of the steps that it stands for, and then the numbers of
# one of them, as arguments of their own.
Step = Callable[..., Any]
Numbers = tuple[Array, ...]


def shared(
  steps: Iterable[Callable[..., Any]], inputs: Sequence[PyTree]
) -> list[tuple[Step, Numbers]]:
  """Returns, for each of several runs, a step and the numbers that it takes.

  Runs whose steps differ only in numbers get the same step.

  Args:
    steps: the step of each run, which can be traced.
    inputs: the arguments of one of them, or their shapes. Those of the others
      have the same shapes.
  """
  groups: list[_Group] = []
  for i, step in enumerate(steps):
    program, results = jax.make_jaxpr(step, return_shape=True)(*inputs)
    text, structure = _Text.of(program), jax.tree.structure(results)
    for group in groups:
      if (group.lines, group.structure) == (text.lines, structure):
        group.constants[i] = text.constants
        break
    else:
      constants = {i: text.constants}
      groups.append(_Group(step, program, structure, text.lines, constants))
  pairs: dict[int, tuple[Step, Numbers]] = {}
  for group in groups:
    pairs |= group.pairs(len(inputs))
  return [pairs[i] for i in range(len(pairs))]


class _Group(NamedTuple):
  """Runs whose steps differ only in numbers.

  Programs are large, so only that of the first run is kept.

  Attributes:
    step: the step of the first run.
    program: its program.
    structure: the structure of its result.
    lines: its program without constants, see `_Text`.
    constants: index of a run -> its constants, see `_Text`.
  """

  step: Step
  program: core.ClosedJaxpr
  structure: jax.tree_util.PyTreeDef
  lines: list[Any]
  constants: dict[int, list[Any]]

  def pairs(self, count: int) -> dict[int, tuple[Step, Numbers]]:
    """Returns index of a run -> its step, and the numbers that it takes.

    Args:
      count: how many arguments the step has without these numbers.
    """
    if len(self.constants) == 1:
      return {i: (self.step, ()) for i in self.constants}
    columns = list(zip(*self.constants.values(), strict=True))
    places = [k for k, column in enumerate(columns) if not _are_equal(column)]
    first = next(iter(self.constants.values()))
    step = _step(self.program, self.structure, first, places, count)
    return {
      i: (step, tuple(jnp.asarray(constants[k]) for k in places))
      for i, constants in self.constants.items()
    }


def _step(
  program: core.ClosedJaxpr,
  structure: jax.tree_util.PyTreeDef,
  constants: Sequence[Any],
  places: Sequence[int],
  count: int,
) -> Step:
  """Returns a step with arguments in place of some constants of its program.

  Args:
    program: the program.
    structure: the structure of its result.
    constants: its constants, see `_Text`.
    places: the positions of those that become arguments.
    count: the number of other arguments.
  """

  def step(*arguments: PyTree) -> Any:
    inputs, numbers = arguments[:count], arguments[count:]
    replaced = dict(zip(places, numbers, strict=True))
    values = (replaced.get(i, x) for i, x in enumerate(constants))
    leaves = jax.tree.leaves(inputs)
    # The equations hold the shapes with which they were traced.
    assert [jnp.shape(x) for x in leaves] == [x.shape for x in program.in_avals]
    outputs = _outputs(program, values, leaves)
    return jax.tree.unflatten(structure, outputs)

  return step


class _Text:
  """A program in a form that can be compared, with its constants apart.

  Attributes:
    lines: the program without the values of its constants.
    constants: the values, in the order in which `_outputs` needs them.
  """

  def __init__(self) -> None:
    """Begins without lines."""
    self.lines: list[Any] = []
    self.constants: list[Any] = []
    self._names: dict[Any, int] = {}
    self._numbers = itertools.count()

  @classmethod
  def of(cls, program: core.ClosedJaxpr) -> '_Text':
    """Reads a program."""
    text = cls()
    text._read(program)
    return text

  def _read(self, program: core.ClosedJaxpr) -> None:
    """Adds the lines and constants of a program."""
    jaxpr = program.jaxpr
    self.constants += program.consts
    self._define(jaxpr.constvars)
    self._define(jaxpr.invars)
    for equation in jaxpr.eqns:
      inputs = tuple(map(self._name, equation.invars))
      called = _called(equation)
      if called is None:
        parameters = _comparable(equation.params)
        self.lines.append((equation.primitive, inputs, parameters))
      else:
        self.lines.append(inputs)
        self._read(called)
      self._define(equation.outvars)
    self.lines.append(tuple(map(self._name, jaxpr.outvars)))

  def _define(self, variables: Sequence[Any]) -> None:
    """Adds a line that names new variables and their types."""
    for variable in variables:
      # A program that is called again gets new names.
      self._names[variable] = next(self._numbers)
    self.lines.append([_type(x.aval) for x in variables])

  def _name(self, x: Any) -> Any:
    """Returns the name of a variable, or the type of a constant."""
    if not isinstance(x, core.Literal):
      return self._names[x]
    kind = _type(x.aval)
    self.constants.append(np.asarray(x.val, kind[1]))
    return kind


def _outputs(
  program: core.ClosedJaxpr, constants: Iterator[Any], inputs: Sequence[Any]
) -> list[Any]:
  """Computes a program whose constants are replaced by others."""
  values: dict[Any, Any] = {}

  def value(x: Any) -> Any:
    return next(constants) if isinstance(x, core.Literal) else values[x]

  jaxpr = program.jaxpr
  values |= {x: next(constants) for x in jaxpr.constvars}
  values |= zip(jaxpr.invars, inputs, strict=True)
  for equation in jaxpr.eqns:
    arguments = [value(x) for x in equation.invars]
    called = _called(equation)
    if called is not None:
      results = _outputs(called, constants, arguments)
    else:
      results = equation.primitive.bind(*arguments, **equation.params)
      if not equation.primitive.multiple_results:
        results = [results]
    values |= zip(equation.outvars, results, strict=True)
  return [value(x) for x in jaxpr.outvars]


def _called(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
  """Returns the program that an equation calls, or None."""
  parameter = _CALLS.get(equation.primitive.name)
  return None if parameter is None else equation.params[parameter]


def _comparable(x: Any) -> Any:
  """Returns parameters with programs and arrays in forms that have `==`."""
  if isinstance(x, core.Jaxpr):
    x = core.ClosedJaxpr(x.replace(constvars=(), invars=_variables(x)), ())
  if isinstance(x, core.ClosedJaxpr):
    text = _Text.of(x)
    return text.lines, _comparable(text.constants)
  if isinstance(x, dict):
    return {key: _comparable(value) for key, value in x.items()}
  if isinstance(x, (list, tuple)):
    return [_comparable(value) for value in x]
  if isinstance(x, (np.ndarray, jax.Array)):
    return _type(x), _bytes(x)
  return x


def _variables(jaxpr: core.Jaxpr) -> list[Any]:
  return [*jaxpr.constvars, *jaxpr.invars]


def _type(x: Any) -> tuple[Any, ...]:
  return getattr(x, 'shape', ()), getattr(x, 'dtype', x)


def _are_equal(values: Sequence[Any]) -> bool:
  """Returns whether all of some arrays of the same type have equal bytes."""
  first, *others = values
  return all(x is first or _bytes(x) == _bytes(first) for x in others)


def _bytes(x: Any) -> bytes:
  if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  return np.asarray(x).tobytes()
