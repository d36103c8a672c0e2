"""Stages are traced once where that changes nothing."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import graph


class Counted(nn.Module):
  """A layer with batch norm and dropout that notes each time it is traced."""

  traces: ClassVar[list[int]] = []

  @nn.compact
  def __call__(self, x, *, train):
    self.traces.append(1)
    x = nn.Dense(x.shape[-1])(x)
    x = nn.BatchNorm(use_running_average=not train)(x)
    return nn.Dropout(0.5, deterministic=not train)(x)


def test_equal_stages_are_traced_once_into_the_same_program():
  network = Network(tuple(Stage(f'group{i}', Counted()) for i in range(4)))
  image = jnp.ones((2, 3))
  variables = graph.init(network, jax.random.key(0), {'image': image})

  def with_run(variables, rng):
    features, updates = graph.run(
      network, variables, {'image': image}, train=True, rngs={'dropout': rng}
    )
    return features['group3'].sum(), updates

  def stage_by_stage(variables, rng):
    x, updates = image, {'batch_stats': {}}
    for i, stage in enumerate(network.stages):
      x, changed = stage.module.apply(
        {c: tree[stage.name] for c, tree in variables.items()},
        x,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.fold_in(rng, i)},
      )
      updates['batch_stats'][stage.name] = changed['batch_stats']
    return x.sum(), updates

  def program(function):
    jitted = jax.jit(jax.value_and_grad(function, has_aux=True))
    text = jitted.lower(variables, jax.random.key(1)).as_text()
    return text.replace(function.__name__, 'f')

  Counted.traces.clear()
  programs = [program(with_run) for _ in range(2)]
  assert len(Counted.traces) == 1
  assert programs == [program(stage_by_stage)] * 2
  assert len(Counted.traces) == 5


class Scaled(nn.Module):
  """A dense layer with a factor of any type."""

  factor: Any = 1.0

  @nn.compact
  def __call__(self, x, *, train):
    del train
    return nn.Dense(2)(x) * jnp.asarray(self.factor).sum()


def traced_sum(factor=1.0):
  """Returns the sum of the output of one stage, with weights of 1."""
  network = Network((Stage('scaled', Scaled(factor)),))
  params = {'kernel': jnp.ones((3, 2)), 'bias': jnp.zeros(2)}
  variables = {'params': {'scaled': {'Dense_0': params}}}

  def total(variables):
    image = jnp.ones((1, 3))
    features, _ = graph.run(network, variables, {'image': image})
    return features['scaled'].sum()

  return float(jax.jit(total)(variables))


@pytest.mark.parametrize('factor', [[2.0], [0.5, 1.5], np.array([2.0])])
def test_modules_without_a_hash_run_in_a_program(factor):
  assert traced_sum(factor) == 12


def test_interceptors_change_a_stage_only_while_they_are_active():
  def twice(method, args, kwargs, context):
    is_dense = isinstance(context.module, nn.Dense)
    return method(*args, **kwargs) * (2 if is_dense else 1)

  values = [traced_sum()]
  with nn.intercept_methods(twice):
    values.append(traced_sum())
  values.append(traced_sum())
  assert values == [6, 12, 6]
