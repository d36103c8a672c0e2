"""Initial weights other than an architecture's own, such as hostile ones.

The schemes of Table 1 of Masked Layer Distillation (tech report
UCB/EECS-2021-243): N(0, 1), N(1, 1), N(1, 0), N(1, 10) and Xavier uniform. The
second number is read as a standard deviation, PyTorch's convention.
"""

from collections.abc import Callable

from flax import linen as nn
import jax

from jaxdistill.networks import arguments
from jaxdistill.types import Array, Variables

Scheme = Callable[[Array, Variables], Variables]  # of (rng, variables)


def normal(
  *, mean: float = 0.0, std: float = 1.0, linear: bool = False
) -> Scheme:
  """Kernels drawn anew from N(mean, std**2), whatever their size.

  Args:
    mean: of all weights.
    std: their standard deviation; at 0 all filters of a layer are alike.
    linear: whether kernels of linear layers are drawn too, not those of
      convolutions alone. A network that is alike in its classifier also cannot
      learn to tell classes.

  Returns:
    (rng, variables) -> variables; biases and norms are as before.

  Raises:
    UsageError: `mean` is no number, or `std` none of at least 0.
  """
  mean, std = arguments.real('mean', mean), arguments.real('std', std, 0.0)

  def draw(rng: Array, kernel: Array) -> Array:
    return mean + std * jax.random.normal(rng, kernel.shape, kernel.dtype)

  return _scheme(draw, linear)


def xavier_uniform(*, linear: bool = False) -> Scheme:
  """Kernels drawn anew, uniform in +-sqrt(6 / (fan in + fan out)).

  Args:
    linear: see `normal`.

  Returns:
    (rng, variables) -> variables; biases and norms are as before.

  References:
    Glorot and Bengio, Understanding the difficulty of training deep
    feedforward neural networks, 2010,
    https://proceedings.mlr.press/v9/glorot10a.html
  """
  uniform = nn.initializers.xavier_uniform()
  return _scheme(lambda rng, k: uniform(rng, k.shape, k.dtype), linear)


def _scheme(draw: Callable[[Array, Array], Array], linear: bool) -> Scheme:
  """Draws the kernels of convolutions `[H, W, C, D]` [and `[C, D]`]."""
  ranks = (2, 4) if linear else (4,)

  def scheme(rng: Array, variables: Variables) -> Variables:
    flat, structure = jax.tree_util.tree_flatten_with_path(variables['params'])
    drawn = [
      draw(jax.random.fold_in(rng, i), x)
      if path[-1].key == 'kernel' and x.ndim in ranks
      else x
      for i, (path, x) in enumerate(flat)
    ]
    return {**variables, 'params': jax.tree.unflatten(structure, drawn)}

  return scheme
