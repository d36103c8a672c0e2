"""What a step of DistPro costs: in the search, and in training.

For each kind of step this prints multiply-adds (half the FLOPs that XLA counts
in the compiled step), their ratio to a training step with all pathways, the
seconds to trace and compile, and the milliseconds a step takes on random images
of 32x32 (medians):

  python benchmarks/distpro.py
  python benchmarks/distpro.py --teacher=wrn_40_2 --student=wrn_16_2 --space=27

With `--runs=0` it only counts and compiles.

With a process it prints how much of the cost of the losses is saved by the
pathways that the process drops. The cost of the losses is that of a step minus
that of a step of KD:

  python benchmarks/distpro.py --process=RUN/rows/distpro/0/process.json
"""

import argparse
import collections
import functools
import statistics
import time

import jax
import numpy as np

from jaxdistill import networks, optimizers
from jaxdistill.core.types import Model
from jaxdistill.data.sources import arrays
from jaxdistill.methods.distpro import method as distpro
from jaxdistill.methods.distpro import pathways
from jaxdistill.methods.distpro import process as process_lib
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification

SPACES = {
  '27': pathways.all_pairs(),
  '15': pathways.same_or_deeper(),
  '10': pathways.same_or_deeper(stem=True, pool=False),
}


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--teacher', default='wrn_16_1')
  parser.add_argument('--student', default='wrn_10_1')
  parser.add_argument('--space', default='10', choices=SPACES)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--runs', type=int, default=5)
  parser.add_argument(
    '--keep', type=float, default=0.4, help='fraction of the pathways'
  )
  parser.add_argument('--rows', nargs='*', help='only these rows')
  parser.add_argument('--process', help='file that a search wrote')
  parser.add_argument('--segments', type=int, default=8)
  options = parser.parse_args()
  carry, recipe = problem(options)
  if options.process:
    savings(options, carry, recipe)
    return
  print(f'{"step":24} {"GMAC":>7} {"ratio":>6} {"compile s":>9} {"ms":>8}')
  whole = None
  for name, (phase, static) in phases(options, carry, recipe).items():
    if options.rows and whole and name not in options.rows:
      continue
    cost, compiling, ms = measure(phase, static, carry, recipe, options.runs)
    whole = whole or cost
    shown = f'{ms:8.1f}' if ms else f'{"-":>8}'
    ratio = cost / whole
    print(
      f'{name:24} {cost / 2e9:7.2f} {ratio:6.2f} {compiling:9.1f} {shown}',
      flush=True,
    )


def savings(options, carry, recipe):
  """Prints the active pathways of each part of a training, and their cost."""
  process = process_lib.load(options.process)
  (phase_of,) = distpro.distpro_retrain(
    recipe._replace(epochs=100),
    process=options.process,
    space=lambda pair: process.pathways,
    segments=options.segments,
  )
  phase, (kd,) = phase_of(carry), joint.kd(recipe)

  def cost(phase, static):
    return measure(phase, static, carry, recipe, runs=0)[0]

  base = cost(kd(carry), None)
  everything = tuple(range(len(process.pathways)))
  whole = cost(phase, everything) - base
  print(f'{"pathways":>8} {"steps":>6} {"GMAC":>7} {"of all":>7}')
  steps = [phase.static(i) for i in range(phase.num_steps)]
  mean = 0.0
  for active, count in collections.Counter(steps).items():
    # Without pathways not even the teacher runs, so that even more is saved.
    losses = max(0.0, cost(phase, active) - base)
    mean += losses * count / len(steps)
    print(
      f'{len(active):8} {count / len(steps):6.0%} {losses / 2e9:7.3f} '
      f'{losses / whole:7.1%}',
      flush=True,
    )
  single = process_lib.active_sets(
    process, len(steps), threshold=0.5, segments=len(steps)
  )
  dropped = 1 - np.mean([len(s) for s in single]) / len(everything)
  print(
    f'on average {dropped:.1%} of the pathways are dropped; '
    f'{options.segments} segments save {1 - mean / whole:.1%} of the cost of '
    f'the losses, and {(whole - mean) / (whole + base):.1%} of that of a step'
  )


def problem(options):
  """Returns the models and a recipe for random images."""
  generator = np.random.default_rng(0)
  size = 10 * options.batch
  image = generator.integers(0, 256, (size, 32, 32, 3), np.uint8)
  label = np.arange(size) % 100
  dataset = arrays.from_arrays(image, label, image, label, validation=0)
  recipe = recipes.recipe(
    dataset,
    classification(),
    epochs=10,
    batch_size=options.batch,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1)),
  )
  shapes, carry = {'image': recipe.example['image']}, {}
  for role in ('student', 'teacher'):
    network = networks.NETWORKS[getattr(options, role)](num_classes=100)
    variables = networks.init(network, jax.random.key(0), shapes)
    carry[role] = Model(network, variables)
  return carry, recipe


def phases(options, carry, recipe):
  """Returns row -> (phase, the choice of its program), training first."""
  space = SPACES[options.space]

  def search(**rules):
    (phase_of,) = distpro.distpro_search(recipe, space=space, **rules)
    return phase_of(carry), None

  (train,) = distpro.distpro_retrain(recipe, use='equal', space=space)
  (kd,) = joint.kd(recipe)
  whole = train(carry)
  everything = whole.static(0)
  kept = everything[:: round(1 / options.keep)]
  return {
    f'training, {len(everything)} pathways': (whole, everything),
    f'training, {len(kept)} of them': (whole, kept),
    'training, none of them': (whole, ()),
    'kd': (kd(carry), None),
    'search, exact': search(),
    'search, algorithm1': search(order='algorithm1'),
    'search, differences': search(hypergradient='finite_difference'),
    'search, unrolled': search(hypergradient='unrolled'),
  }


def random_batches(phase, recipe):
  """Returns a batch for each stream of a phase, on the device."""
  generator = np.random.default_rng(0)
  example = recipe.example
  batch = {
    'image': generator.normal(size=example['image'].shape).astype(np.float32),
    'label': generator.integers(0, 100, example['label'].shape, np.int32),
  }
  return jax.device_put({name: batch for name in phase.streams})


def measure(phase, static, carry, recipe, runs):
  """Returns FLOPs, seconds to compile, and median milliseconds a step."""
  state, frozen = phase.init(jax.random.key(0), carry)
  batches = random_batches(phase, recipe)
  step = jax.jit(functools.partial(phase.step, static=static), donate_argnums=0)
  start = time.perf_counter()
  compiled = step.lower(state, frozen, batches, jax.random.key(1)).compile()
  compiling = time.perf_counter() - start
  state, times = jax.tree.map(jax.numpy.copy, state), []
  for _ in range(runs + 1 if runs else 0):
    start = time.perf_counter()
    state, _ = jax.block_until_ready(
      compiled(state, frozen, batches, jax.random.key(1))
    )
    times.append(1e3 * (time.perf_counter() - start))
  median = statistics.median(times[1:]) if runs else None
  return compiled.cost_analysis()['flops'], compiling, median


if __name__ == '__main__':
  main()
