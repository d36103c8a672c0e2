"""Batch norms on several devices use the statistics of the whole batch."""

import os
import subprocess
import sys

# The halves of the batch, one on each of two devices, have the means 0 and 10.
SCRIPT = """
import jax, numpy as np
from flax import linen as nn
from jaxdistill.networks.layers import norms
from jaxdistill.training.distributed import sharding

mesh = sharding.make_mesh()
assert mesh.shape['data'] == 2
x = np.random.default_rng(0).normal(size=(4, 3, 5, 2)).astype(np.float32)
x[2:] += 10
options = dict(use_running_average=False, epsilon=1e-5, momentum=0.0)
options |= dict(scale_init=nn.initializers.ones, dtype=np.float32)
for kind in (nn.BatchNorm, norms.ScaleShift):
  norm = kind(**options)
  variables = norm.init(jax.random.key(0), x)
  apply = jax.jit(lambda v, x: norm.apply(v, x, mutable=['batch_stats']))
  parts = jax.device_put(x, sharding.rows(mesh))
  y, updates = apply(jax.device_put(variables, sharding.whole(mesh)), parts)
  assert len(y.sharding.device_set) == 2
  stats = updates['batch_stats']
  np.testing.assert_allclose(stats['mean'], x.mean((0, 1, 2)), rtol=1e-4)
  np.testing.assert_allclose(stats['var'], x.var((0, 1, 2)), rtol=1e-4)
  np.testing.assert_allclose(y[:2].mean(), -1, atol=0.1)
  np.testing.assert_allclose(y[2:].mean(), 1, atol=0.1)
print('both are synchronised')
"""


def test_batch_norms_of_two_devices_are_synchronised():
  flags = f'{os.environ.get("XLA_FLAGS", "")} '
  flags += '--xla_force_host_platform_device_count=2'
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT],
    env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert 'both are synchronised' in done.stdout
