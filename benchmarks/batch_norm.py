"""A training step with three ways to compute the variance of a batch norm.

The fast variance, which the library uses, is mean(x**2) - mean(x)**2, in one
pass over the map. The exact variance is mean((x - mean(x))**2), in two passes.
The shifted variance is the fast one of x minus the running mean. The programs
take turns in one process. The script prints medians of the processor time of
all threads, which depends little on what else runs, their ratios to the fast
variance, and the error of each variance if the mean of a channel is much
larger than its spread.

  python benchmarks/batch_norm.py --repeats 60
"""

import argparse
import functools
import statistics
import time
from unittest import mock

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import networks, optimizers
from jaxdistill.core import random
from jaxdistill.core.types import Model
from jaxdistill.data.sources import arrays
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification

# Network -> the shape of its images.
NETWORKS = {'resnet8': (8, 8, 1), 'resnet20': (32, 32, 3)}
RATIOS = (1, 10, 100, 1000, 10_000)


class Shifted(nn.BatchNorm):
  """Batch norm with the fast variance of x minus the running mean."""

  @nn.compact
  def __call__(self, x, use_running_average=None):
    del use_running_average
    shape = (x.shape[-1],)
    running = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale = self.param('scale', self.scale_init, shape)
    bias = self.param('bias', self.bias_init, shape)
    x = x - running.value
    if self.use_running_average:
      mean, var = jnp.zeros(shape), running_var.value
    else:
      axes = tuple(range(x.ndim - 1))
      mean = x.mean(axes)
      var = jnp.maximum((x * x).mean(axes) - mean * mean, 0)
      if not self.is_initializing():
        kept = self.momentum
        running.value = running.value + (1 - kept) * mean
        running_var.value = kept * running_var.value + (1 - kept) * var
    return (x - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias


NORMS = {
  'fast': nn.BatchNorm,
  'exact': functools.partial(nn.BatchNorm, use_fast_variance=False),
  'shifted': Shifted,
}


def make_step(name, norm, batch_size):
  """Returns a call that takes one training step, already compiled."""
  shape = NETWORKS[name]
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (4 * batch_size, *shape), np.uint8)
  label = np.arange(len(image)) % 10
  dataset = arrays.from_arrays(image, label, image, label, validation=0)
  recipe = recipes.recipe(
    dataset,
    classification(),
    epochs=10,
    batch_size=batch_size,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
  )
  network = networks.create(name, num_classes=10)
  with mock.patch.object(nn, 'BatchNorm', norm):
    example = {'image': jnp.zeros((1, *shape))}
    variables = networks.init(network, jax.random.key(0), example)
    carry = {'student': Model(network, variables)}
    phase = joint.supervised(recipe)[0](carry)
    state, frozen = phase.init(jax.random.key(1), carry)
    raw = {k: v[:batch_size] for k, v in dataset.splits['train'].items()}
    batches = {'train': recipe.stream.augment(jax.random.key(0), raw)}
    key = random.model_key(0)
    step = jax.jit(lambda *a: phase.step(*a, None), donate_argnums=0)
    compiled = step.lower(state, frozen, batches, key).compile()

  def take():
    nonlocal state
    state, metrics = compiled(state, frozen, batches, key)
    jax.block_until_ready((state, metrics))

  return take


def error(norm, ratio):
  """Returns the largest factor by which a spread of 1 is wrong."""
  noise = np.random.default_rng(0).normal(size=(64, 8, 8, 4))
  x = jnp.asarray((noise + ratio).astype(np.float32))
  exact = np.float64(x) - np.float64(x).mean((0, 1, 2))
  exact /= exact.std((0, 1, 2))
  module = norm(use_running_average=False, momentum=0.9)
  variables = module.init(jax.random.key(0), x)
  for _ in range(60):  # until the running mean has settled
    y, new = module.apply(variables, x, mutable=['batch_stats'])
    variables = {**variables, **new}
  return float(np.abs(np.std(np.float64(y), (0, 1, 2)) - 1).max())


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--batch_size', type=int, default=64)
  parser.add_argument('--repeats', type=int, default=60)
  parser.add_argument('--only', choices=NETWORKS)
  arguments = parser.parse_args()
  print('| network | ' + ' | '.join(f'{n}, ms' for n in NORMS), end=' | ')
  print('exact / fast | shifted / fast |')
  print('|---' * (len(NORMS) + 3) + '|')
  for name in [arguments.only] if arguments.only else NETWORKS:
    steps = {
      key: make_step(name, norm, arguments.batch_size)
      for key, norm in NORMS.items()
    }
    times = {key: [] for key in NORMS}
    for i in range(arguments.repeats + 3):
      for key, step in steps.items():
        start = time.process_time()
        step()
        if i >= 3:
          times[key].append(1e3 * (time.process_time() - start))
    ratio = {
      key: statistics.median(x / y for x, y in zip(values, times['fast']))
      for key, values in times.items()
    }
    medians = ' | '.join(f'{statistics.median(v):.1f}' for v in times.values())
    print(f'| {name} | {medians} | ', end='')
    print(f'{ratio["exact"]:.3f} | {ratio["shifted"]:.3f} |', flush=True)
  print('\nerror of the spread at mean / spread = ...\n')
  print('| variance | ' + ' | '.join(map(str, RATIOS)) + ' |')
  print('|---' * (len(RATIOS) + 1) + '|')
  for key, norm in NORMS.items():
    errors = ' | '.join(f'{error(norm, ratio):.1g}' for ratio in RATIOS)
    print(f'| {key} | {errors} |')


if __name__ == '__main__':
  main()
