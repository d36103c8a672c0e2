"""Traces of the stages of networks, which programs share."""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax

from jaxdistill.core.types import StageModule
from jaxdistill.networks.layers import convolutions


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
  """Makes programs reuse earlier traces of equal stages.

  Deep networks repeat their blocks, and a study traces each of its networks
  several times. With this, equal modules are traced only once for each shape of
  their inputs. The program is the same as without it. Modules without
  a hash, and those whose methods an interceptor of Flax changes, are traced
  each time.

  Args:
    function: `(module, train, *arrays) -> arrays`, for pytrees of arrays. What
      it does may depend only on them and on `convolutions.form()`.
  """

  @functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
  def traced(
    module: StageModule, train: bool, form: tuple[str, ...], *arrays: Any
  ) -> Any:
    return function(module, train, *arrays)

  @functools.wraps(function)
  def call(module: StageModule, train: bool, *arrays: Any) -> Any:
    leaves = jax.tree.leaves(arrays)
    is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    if is_traced and _has_reusable_traces(module):
      return traced(module, train, convolutions.form(), *arrays)
    return function(module, train, *arrays)

  return call


def _has_reusable_traces(module: StageModule) -> bool:
  """Returns whether a module has a hash and no interceptor changes it."""
  if nn.module._global_interceptor_stack:
    return False
  try:
    hash(module)
  except TypeError:  # a field is a list or an array
    return False
  return True
