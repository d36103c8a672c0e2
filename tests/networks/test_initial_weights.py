"""Weights are initialised as in the code from which a network comes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import networks

# Network -> (arguments, a block and the channels that it reads, the
# distribution of its kernels and of the head, scale and momentum of its norms).
CASES = {
  'resnet20': ({}, 'group2.block2', 32, 'fan_out', 'uniform', 1, 0.9),
  'resnet50': ({}, 'group1.block2', 256, 'fan_out', 'uniform', 1, 0.9),
  'wrn_16_2': ({}, 'group2.block2', 64, 'fan_out', 'zero bias', 1, 0.9),
  'preactivation_resnet56': (
    *({'scale': 0.5}, 'group1.block2', 64, 'fan_out', 'uniform', 0.5, 0.9),
  ),
  'vgg13': ({'scale': 0.5}, 'group2.conv1', 64, 'fan_out', 0.01, 0.5, 0.9),
  'imagenet_vgg': ({}, 'group2.conv1', 64, 'fan_out', 0.01, 1, 0.9),
  'mobilenet_v1': ({}, 'group2.block2', 128, 'fan_out', 'uniform', 1, 0.9),
  'mobilenet_v2': ({}, 'group2.block2', 24, 'fan_out', 0.01, 1, 0.9),
  'cifar_mobilenet_v2': ({}, 'group4.block2', 32, 'fan_out', 0.01, 1, 0.9),
  'mobilenet_v3_small': ({}, 'group3.block2', 40, 'fan_out', 0.01, 1, 0.99),
  'efficientnet_b0': ({}, 'group3.block2', 40, 'fan_out', 'out', 1, 0.99),
  'cifar_shufflenet_v1': (
    *({}, 'group1.block2', 240, 'uniform', 'uniform', 1, 0.9),
  ),
  'shufflenet_v2': ({}, 'group1.block2', 116, 'uniform', 'uniform', 1, 0.9),
  'densenet40_12': (
    *({'scale': 0.5}, 'group1.block5', 72, 'fan_out', 'uniform', 0.5, 0.9),
  ),
  'densenet121': ({}, 'group1.block2', 96, 'fan_in', 'zero bias', 1, 0.9),
  'pyramidnet110_64': ({}, 'group3.block1', 240, 'fan_out', 'uniform', 1, 0.9),
  'deit_tiny': ({}, 'group1.block1', 192, 0.02, 0.02, 1, None),
}


def outcome(module, shape):
  """Returns initial parameters, and batch statistics after a step on zeros."""

  def compute(rng):
    zeros = jnp.zeros(shape)
    variables = module.init(rng, zeros, train=False)
    _, changed = module.apply(
      variables,
      zeros,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': rng},
    )
    return variables['params'], changed.get('batch_stats', {})

  options = {'xla_backend_optimization_level': 0}
  return jax.jit(compute, compiler_options=options)(jax.random.key(0))


def assert_distribution(name, values, fan_in, fan_out):
  """Checks mean and deviation up to five standard errors.

  Args:
    name: the name of a distribution, or the standard deviation of a normal one.
    values: the drawn values.
    fan_in: the inputs of each output.
    fan_out: the outputs of each input.
  """
  bounds = {'uniform': fan_in**-0.5, 'zero bias': fan_in**-0.5}
  bounds['out'] = fan_out**-0.5
  if name in bounds:
    std = bounds[name] / 3**0.5
    assert np.abs(values).max() <= bounds[name]
  else:
    stds = {'fan_in': (2 / fan_in) ** 0.5, 'fan_out': (2 / fan_out) ** 0.5}
    std = stds.get(name, name)
    # It is not truncated.
    assert values.size < 2000 or np.abs(values).max() > 2.5 * std
  assert values.std() == pytest.approx(std, rel=5 / (2 * values.size) ** 0.5)
  assert abs(values.mean()) < 5 * std / values.size**0.5


@pytest.mark.parametrize('name', CASES)
def test_weights_are_initialised_as_in_the_original_code(name):
  arguments, block, channels, distribution, head, scale, momentum = CASES[name]
  network = networks.NETWORKS[name](num_classes=300, **arguments)
  modules = {stage.name: stage.module for stage in network.stages}
  shape = (2, 4, channels) if name == 'deit_tiny' else (2, 4, 4, channels)
  params, stats = outcome(modules[block], shape)
  kernels = 0
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    leaf, value = path[-1].key, np.asarray(value)
    if leaf == 'kernel' and value.size > 200:
      fan_in, fan_out = value[..., 0].size, value[..., 0, :].size
      assert_distribution(distribution, value, fan_in, fan_out)
      kernels += 1
    elif leaf != 'kernel':
      np.testing.assert_array_equal(value, scale if leaf == 'scale' else 0)
  assert kernels
  # The variance of zeros is 0, and the running variance was 1.
  for path, value in jax.tree_util.tree_leaves_with_path(stats):
    if path[-1].key == 'var':
      np.testing.assert_allclose(value, momentum, rtol=1e-6)
  params, _ = outcome(modules['head'], (2, 300))
  kernel, bias = (np.asarray(params['linear'][k]) for k in ('kernel', 'bias'))
  assert_distribution(head, kernel, 300, 300)
  if head == 'uniform':
    assert_distribution(head, bias, 300, 300)
  else:
    assert not bias.any()
