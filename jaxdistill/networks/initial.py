"""Initial weights other than those of the architecture, such as hostile ones.

The schemes of Table 1 of Masked Layer Distillation (tech report
UCB/EECS-2021-243): N(0, 1), N(1, 1), N(1, 0), N(1, 10) and Xavier uniform. The
second number is taken to be a standard deviation, which is PyTorch's
convention.
"""

from collections.abc import Callable

from flax import linen as nn
import jax

from jaxdistill.core import checks
from jaxdistill.core.types import Array, Variables

# (rng, variables) -> variables with other initial weights.
Scheme = Callable[[Array, Variables], Variables]


def normal(
  *, mean: float = 0.0, std: float = 1.0, linear: bool = False
) -> Scheme:
  """Returns a scheme that draws kernels from N(mean, std**2), whatever their
  size.

  Args:
    mean: the mean of the weights.
    std: their standard deviation. With 0, all filters of a layer are equal.
    linear: whether the kernels of linear layers are drawn too, besides those of
      convolutions. A network whose classifier has equal weights for all classes
      cannot learn to tell them apart.

  Returns:
    (rng, variables) -> variables, in which biases and norms are unchanged.

  Raises:
    UsageError: `mean` is not a finite number, or `std` is not one of at least
      0.
  """
  mean, std = checks.number('mean', mean), checks.number('std', std, at_least=0)

  def draw(rng: Array, kernel: Array) -> Array:
    return mean + std * jax.random.normal(rng, kernel.shape, kernel.dtype)

  return _scheme(draw, linear)


def xavier_uniform(*, linear: bool = False) -> Scheme:
  """Returns a scheme that draws kernels from +-sqrt(6 / (fan in + fan out)).

  Args:
    linear: see `normal`.

  Returns:
    (rng, variables) -> variables, in which biases and norms are unchanged.

  References:
    Glorot and Bengio, Understanding the difficulty of training deep
    feedforward neural networks, 2010,
    https://proceedings.mlr.press/v9/glorot10a.html
  """
  uniform = nn.initializers.xavier_uniform()
  return _scheme(lambda rng, k: uniform(rng, k.shape, k.dtype), linear)


def _scheme(draw: Callable[[Array, Array], Array], linear: bool) -> Scheme:
  """Returns a scheme that draws the kernels of convolutions [and linear
  layers]."""
  # Kernels of convolutions are `[H, W, C, D]`, those of linear layers `[C, D]`.
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
