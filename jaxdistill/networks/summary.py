"""A table of a network's stages: shapes, parameters, multiply-adds."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdistill.networks import files, staged
from jaxdistill.types import Network


class Row(NamedTuple):
  """One stage.

  Attributes:
    stage: its name.
    shape: of its output, without the batch.
    parameters: number of values in 'params'.
    macs: multiply-adds of matrix products and convolutions for one image.
  """

  stage: str
  shape: tuple[int, ...]
  parameters: int
  macs: int


class Summary(NamedTuple):
  """A network's stages in order; its text is a table with totals."""

  rows: tuple[Row, ...]

  @property
  def parameters(self) -> int:
    return sum(row.parameters for row in self.rows)

  @property
  def macs(self) -> int:
    return sum(row.macs for row in self.rows)

  def __str__(self) -> str:
    total = Row('total', self.rows[-1].shape, self.parameters, self.macs)
    lines = [('stage', 'output', 'parameters', 'multiply-adds')]
    lines += [
      (
        r.stage,
        ' x '.join(map(str, r.shape)),
        f'{r.parameters:,}',
        f'{r.macs:,}',
      )
      for r in (*self.rows, total)
    ]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join(
      f'{a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}'
      for a, b, c, d in lines
    )


def summary(network: Network, image_shape: tuple[int, ...]) -> Summary:
  """Counts a network's parameters and work; nothing is compiled or run.

  One multiply-add counts once, as in the papers' tables; twice that is the
  number of floating point operations. Norms, activations, additions and
  pooling are left out, as there; padding counts as if it were image.

  Args:
    network: the network.
    image_shape: `(H, W, C)`.
  """
  features = {'image': jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)}
  variables = jax.eval_shape(
    lambda rng, features: staged.init(network, rng, features),
    jax.random.key(0),
    features,
  )
  rows = []
  for name in staged.stage_names(network):

    def run(own, features, name=name):
      return staged.run(network, own, features, only=(name,))[0]

    own = {'params': {}, **staged.select(variables, (name,))}
    trace = jax.make_jaxpr(run, return_shape=True)
    jaxpr, features = trace(own, features)
    shape = features[name].shape[1:]
    macs = _macs(jaxpr.jaxpr)
    rows.append(Row(name, shape, files.count_parameters(own), macs))
  return Summary(tuple(rows))


def _macs(jaxpr: Any) -> int:
  """Multiply-adds of a jaxpr and of all that it calls."""
  total = 0
  for equation in jaxpr.eqns:
    counted = _macs_of(equation)
    if counted is None:
      inside = jax.tree.leaves(
        list(equation.params.values()), is_leaf=_is_jaxpr
      )
      called = [getattr(p, 'jaxpr', p) for p in inside if _is_jaxpr(p)]
      counted = equation.params.get('length', 1) * sum(map(_macs, called))
    total += counted
  return total


def _macs_of(equation: Any) -> int | None:
  """Multiply-adds of one equation; None if they are those of what it calls."""
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
  # convolutions.depthwise, kernel [K, K, 1, C].
  if equation.params.get('name') == 'depthwise':
    return out * kernel.shape[0] * kernel.shape[1]
  return None


def _is_jaxpr(value: Any) -> bool:
  return hasattr(value, 'eqns') or hasattr(value, 'jaxpr')
