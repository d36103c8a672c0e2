"""Time of a step of Neighbourhood Distillation, compared with a step of KD.

The teacher is a ResNet-20, the student is narrowed inside its blocks to half,
and the batch size is 128. Measured are
  - a step of KD, which fine-tuning takes too;
  - a step of all neighbourhoods at once, without and with a look-ahead of two;
  - the same with the teacher's activations read from a memory-mapped file
    instead of being computed;
  - a step of several candidates for each block, unrolled and stacked. On a CPU
    the stack takes minutes; `--candidates 0` omits both.
The steps take turns in one process. Medians are printed, and their ratios to
the first.

  python benchmarks/neighbourhood.py
"""

import argparse
import functools
import pathlib
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import networks, objectives
from jaxdistill.core.types import Model
from jaxdistill.data.sources import arrays
from jaxdistill.methods.neighbourhood import piece_phases
from jaxdistill.methods.neighbourhood.plan import Plan
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import narrowing
from jaxdistill.phases import joint, recipes
from jaxdistill.tasks import classification


def setting(batch_size, count, candidates):
  """Returns a recipe for random images, the models, and a batch."""
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
  label = np.arange(count) % 10
  dataset = arrays.from_arrays(image, label, image, label, validation=0)
  recipe = recipes.recipe(
    dataset,
    classification(),
    epochs=1,
    batch_size=batch_size,
  )
  wide = networks.NETWORKS['resnet20']()
  example = {'image': recipe.example['image']}

  def model(network, seed):
    return Model(network, graph.init(network, jax.random.key(seed), example))

  carry = {'teacher': model(wide, 0)}
  for i in range(1, candidates + 1):
    narrow = narrowing.narrowed(wide, multiplier=i / candidates)
    carry[f'k {i / candidates:g}'] = model(narrow, i)
  carry['student'] = model(narrowing.narrowed(wide, multiplier=0.5), 0)
  raw = {k: v[:batch_size] for k, v in dataset.splits['train'].items()}
  batch = recipe.stream.augment(jax.random.key(0), raw)
  return recipe, carry, jax.tree.map(jnp.asarray, batch)


def stepper(phase, carry, batch):
  """Returns a function that takes one step and waits for it."""
  state, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None), donate_argnums=0)
  states, rng = [jax.tree.map(jnp.copy, state)], jax.random.key(1)

  def run():
    states[0], metrics = step(states[0], frozen, {'train': batch}, rng)
    jax.block_until_ready(metrics)

  return run


def candidates_step(batch_size, candidates, form):
  """Returns a function that takes a step with candidates for each block.

  Args:
    batch_size: the number of images.
    candidates: the number of widths of each block.
    form: 'unroll' or 'stack'.
  """
  recipe, carry, batch = setting(batch_size, batch_size, candidates)
  phase = piece_phases.train_phase(
    Plan(recipe, form=form), carry, candidate_roles(carry)
  )
  return stepper(phase, carry, batch)


def candidate_roles(carry):
  return tuple(k for k in carry if k.startswith('k '))


def cached(recipe, carry, batch, folder):
  """Returns a step on activations read from a file, and their size."""
  plan = Plan(recipe)
  teacher = carry['teacher']
  layout = plan.layout(carry['student'].network, teacher.network)
  features, _ = graph.run(*teacher, {'image': batch['image']})
  files = {}
  for _, name in layout.cut:
    files[name] = np.lib.format.open_memmap(
      pathlib.Path(folder, f'{name}.npy'),
      'w+',
      np.float32,
      features[name].shape,
    )
    files[name][:] = features[name]

  def loss_of(variables, activations, params):
    total = 0.0
    variables = graph.merge(variables, {'params': params})
    for piece in layout.neighbourhoods:
      outputs, _ = graph.run(
        carry['student'].network,
        variables,
        {s: activations[t] for s, t in layout.cut},
        only=piece.student,
        train=True,
      )
      error = outputs[piece.output[0]] - activations[piece.output[1]]
      total += (error**2).mean()
    return total

  variables = carry['student'].variables
  params = graph.select(variables, layout.stages)['params']
  gradient = jax.jit(jax.value_and_grad(loss_of, argnums=2))

  def run():
    read = {name: jnp.asarray(np.array(x)) for name, x in files.items()}
    jax.block_until_ready(gradient(variables, read, params))

  size = sum(x.nbytes for x in files.values()) / len(batch['image'])
  return run, size


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--candidates', type=int, default=10)
  arguments = parser.parse_args()
  batch_size, candidates = arguments.batch_size, arguments.candidates
  recipe, carry, batch = setting(batch_size, batch_size, candidates)

  def phase(students=('student',), **plan):
    return piece_phases.train_phase(Plan(recipe, **plan), carry, students)

  kd = joint.joint(recipe, terms={'tempered': objectives.tempered()})[0](carry)
  with tempfile.TemporaryDirectory() as folder:
    from_file, size = cached(recipe, carry, batch, folder)
    steps = {
      'kd': stepper(kd, carry, batch),
      'neighbourhoods': stepper(phase(), carry, batch),
      '2 ahead': stepper(phase(look_ahead=(1.0, 1.0)), carry, batch),
      'neighbourhoods, cached': from_file,
    }
    for form in ('unroll', 'stack') if candidates else ():
      steps[f'{candidates} candidates, {form}'] = stepper(
        phase(candidate_roles(carry), form=form), carry, batch
      )
    times = {name: [] for name in steps}
    for name, step in steps.items():  # The first step compiles.
      start = time.perf_counter()
      step()
      print(f'{name}: first step {time.perf_counter() - start:.1f} s')
    for _ in range(arguments.rounds):
      for name, step in steps.items():
        start = time.perf_counter()
        step()
        times[name].append(time.perf_counter() - start)
  medians = {name: statistics.median(x) for name, x in times.items()}
  print(f'activations in the file: {size / 1024:.0f} KiB an image')
  for name, value in medians.items():
    print(f'{name:26} {1e3 * value:8.1f} ms {value / medians["kd"]:6.2f}')


if __name__ == '__main__':
  main()
