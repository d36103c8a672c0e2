"""The table of a network's stages: shapes, parameters, multiply-adds."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.core.types import Features, Network, Variables
from jaxdistill.networks import graph


class Row(NamedTuple):
  """One stage.

  Attributes:
    stage: the name of the stage.
    shape: the shape of its output, without the batch.
    parameters: how many values its 'params' hold.
    macs: the multiply-adds of its matrix products and convolutions, for one
      image.
  """

  stage: str
  shape: tuple[int, ...]
  parameters: int
  macs: int


class Summary(NamedTuple):
  """A network's stages in order; `str` turns it into a table with totals."""

  rows: tuple[Row, ...]

  @property
  def parameters(self) -> int:
    """How many values the 'params' of the network hold."""
    return sum(row.parameters for row in self.rows)

  @property
  def macs(self) -> int:
    """The multiply-adds of the network, for one image."""
    return sum(row.macs for row in self.rows)

  def __str__(self) -> str:
    total = Row('total', self.rows[-1].shape, self.parameters, self.macs)
    lines = [('stage', 'output', 'parameters', 'multiply-adds')]
    lines += [
      (
        row.stage,
        ' x '.join(map(str, row.shape)),
        f'{row.parameters:,}',
        f'{row.macs:,}',
      )
      for row in (*self.rows, total)
    ]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join(
      f'{a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}'
      for a, b, c, d in lines
    )


def summary(network: Network, image_shape: tuple[int, ...]) -> Summary:
  """Counts the parameters and multiply-adds of a network's stages.

  Nothing is compiled or computed. One multiply-add counts once, as in the
  tables of the papers; the number of floating point operations is twice that.
  Norms, activations, additions and pooling are not counted, and padding counts
  as if it were image, also as in the papers.

  Args:
    network: the network.
    image_shape: (H, W, C) of an image.

  Returns:
    The rows of the table; print it to read it.
  """
  features: dict[str, Any] = {
    'image': jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  }
  variables = graph.variable_shapes(network, features)
  rows = []
  for name in graph.stage_names(network):

    def run(
      stage_variables: Variables, features: Features, name: str = name
    ) -> Features:
      return graph.run(network, stage_variables, features, only=(name,))[0]

    stage_variables = {'params': {}, **graph.select(variables, (name,))}
    trace = jax.make_jaxpr(run, return_shape=True)
    jaxpr, features = trace(stage_variables, features)
    shape = features[name].shape[1:]
    macs = _macs(jaxpr.jaxpr)
    rows.append(Row(name, shape, graph.count_parameters(stage_variables), macs))
  return Summary(tuple(rows))


def _macs(jaxpr: Any) -> int:
  """Returns the multiply-adds of a jaxpr and of everything that it calls."""
  total = 0
  for equation in jaxpr.eqns:
    count = _macs_of(equation)
    if count is None:
      leaves = jax.tree.leaves(
        list(equation.params.values()), is_leaf=_is_jaxpr
      )
      called = [getattr(p, 'jaxpr', p) for p in leaves if _is_jaxpr(p)]
      count = equation.params.get('length', 1) * sum(map(_macs, called))
    total += count
  return total


def _macs_of(equation: Any) -> int | None:
  """Returns the multiply-adds of one equation; None if it only calls others."""
  name = equation.primitive.name
  out = equation.outvars[0].aval.size
  if name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    return out * math.prod(shape[i] for i in contracted)
  kernel: Any = equation.invars[-1].aval if equation.invars else None
  if name == 'conv_general_dilated':
    features = equation.params['dimension_numbers'].rhs_spec[0]
    return out * kernel.size // kernel.shape[features]
  # `dense.convolve` and `convolutions.depthwise`, with `[K, K, C / groups, F]`.
  if name == 'dense' or equation.params.get('name') == 'depthwise':
    return out * kernel.size // kernel.shape[-1]
  return None


def _is_jaxpr(value: Any) -> bool:
  return hasattr(value, 'eqns') or hasattr(value, 'jaxpr')
