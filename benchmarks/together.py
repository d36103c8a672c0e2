"""A step of several seeds: mapped in one program, and in turn.

Seeds that train together take their steps in turn, by one compiled step, or are
mapped (`jax.vmap`) in one program. The library does the former on CPUs and the
latter elsewhere. Both take turns in one process. For a step of all seeds, the
script prints medians of the processor time of all threads, which depends little
on what else runs, or of the wall time on a GPU. It also prints how long the
first step took, in which the program is compiled.

  python benchmarks/together.py --network resnet8 --size 8 --seeds 1 8
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import methods, networks, optimizers
from jaxdistill.core import random
from jaxdistill.core.types import Model
from jaxdistill.data.sources import arrays
from jaxdistill.phases import recipes
from jaxdistill.tasks import classification
from jaxdistill.training import lanes as lanes_lib
from jaxdistill.training import programs
from jaxdistill.training.distributed import sharding

WAYS = ('in turn', 'mapped')


def make_parts(arguments, count):
  """Returns (phase of kd, states, frozen trees, batches, keys) of the seeds."""
  shape = arguments.size, arguments.size, arguments.channels
  generator = np.random.default_rng(0)
  size = 2 * arguments.batch_size
  image = generator.integers(0, 256, (size, *shape), np.uint8)
  label = np.arange(size) % 10
  dataset = arrays.from_arrays(image, label, image, label, validation=0)
  recipe = recipes.recipe(
    dataset,
    classification(),
    epochs=10,
    batch_size=arguments.batch_size,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
  )
  network = networks.create(arguments.network, num_classes=10)
  example = {'image': jnp.zeros((1, *shape))}

  def model(seed):
    return Model(network, networks.init(network, jax.random.key(seed), example))

  teacher = model(1000)
  carries = [{'student': model(i), 'teacher': teacher} for i in range(count)]
  phase = methods.kd(recipe)[0](carries[0])
  keys = [random.phase_keys(i, 0) for i in range(count)]
  states, frozen = zip(
    *(phase.init(k, c) for (k, _), c in zip(keys, carries, strict=True))
  )
  raw = {
    k: v[: arguments.batch_size] for k, v in dataset.splits['train'].items()
  }
  batches = [{'train': jax.tree.map(jnp.asarray, raw)}] * count
  return phase, states, frozen, batches, [key for _, key in keys]


def make_step(arguments, count, way):
  """Returns a function that takes one step of all seeds."""
  phase, *trees = make_parts(arguments, count)
  mesh = sharding.make_mesh()
  lanes = lanes_lib.InTurn() if way == 'in turn' else lanes_lib.Together()
  traced = programs.trace(phase, [tree[0] for tree in trees], mesh)
  states, frozen, batches, keys = trees
  state = jax.tree.map(jnp.copy, lanes.packed(states))
  totals = jax.tree.map(jnp.copy, lanes.packed([traced.totals] * count))
  frozen, axes = lanes.frozen(frozen)
  layout = sharding.layout(state, mesh)
  runs = programs.shared([traced]) * count
  step = programs.compiled(runs, layout, mesh, lanes, axes)(None, 1)
  inputs = frozen, lanes.packed(batches), lanes.packed(keys)
  run = [state, totals]

  def take():
    run[:] = step(*run, *inputs, lanes.index(0, [True] * count))
    jax.block_until_ready(run)

  return take


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--network', default='resnet8')
  parser.add_argument('--size', type=int, default=8)
  parser.add_argument('--channels', type=int, default=1)
  parser.add_argument('--batch_size', type=int, default=64)
  parser.add_argument('--seeds', type=int, nargs='+', default=(1, 8))
  parser.add_argument('--repeats', type=int, default=20)
  arguments = parser.parse_args()
  is_cpu = jax.default_backend() == 'cpu'
  clock = time.process_time if is_cpu else time.perf_counter
  print('| seeds | in turn, ms | mapped / in turn |', end='')
  print(*(f' first step {way}, s |' for way in WAYS))
  print('|---' * (len(WAYS) * 2 + 1) + '|')
  for count in arguments.seeds:
    steps = {way: make_step(arguments, count, way) for way in WAYS}
    first, times = {}, {way: [] for way in WAYS}
    for i in range(arguments.repeats + 1):
      for way, step in steps.items():
        start = clock()
        step()
        seconds = clock() - start
        if i:
          times[way].append(seconds)
        else:
          first[way] = seconds
    in_turn, mapped = (times[way] for way in WAYS)
    ratio = statistics.median(x / y for x, y in zip(mapped, in_turn))
    print(f'| {count} | {1e3 * statistics.median(in_turn):.1f} |', end='')
    print(f' {ratio:.2f} |', end='')
    print(*(f' {first[way]:.1f} |' for way in WAYS), flush=True)


if __name__ == '__main__':
  main()
