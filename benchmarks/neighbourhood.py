"""Time of a step of Neighbourhood Distillation, beside a step of KD.

A ResNet-20 teacher and its student narrowed inside by k = 0.5, batch 128:
  - KD's step, which fine-tuning takes too; all neighbourhoods at once, without
    and with two pieces of look-ahead; the same with the teacher's activations
    read from a memory-mapped file in place of computing them;
  - several candidates for each block, unrolled and stacked; on the CPU the
    stack takes minutes, and `--candidates 0` leaves both out.
Steps take turns in one process; medians and ratios to the first are printed.

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

from jaxdistill import networks, recipes, terms
from jaxdistill.data import arrays
from jaxdistill.methods import joint, pieces
from jaxdistill.networks import layerwise, staged
from jaxdistill.tasks import classification
from jaxdistill.types import Model


def setting(batch_size, count, candidates):
  """A recipe on random images, and the models."""
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
  label = np.arange(count) % 10
  dataset = arrays.from_arrays(image, label, image, label, validation=0)
  recipe = recipes.recipe(
    dataset,
    classification.classification(),
    epochs=1,
    batch_size=batch_size,
  )
  whole = networks.NETWORKS['resnet20']()
  example = {'image': recipe.example['image']}

  def model(network, seed):
    return Model(network, staged.init(network, jax.random.key(seed), example))

  carry = {'teacher': model(whole, 0)}
  for i in range(1, candidates + 1):
    narrow = layerwise.narrowed(whole, multiplier=i / candidates)
    carry[f'k {i / candidates:g}'] = model(narrow, i)
  carry['student'] = model(layerwise.narrowed(whole, multiplier=0.5), 0)
  raw = {k: v[:batch_size] for k, v in dataset.splits['train'].items()}
  batch = recipe.stream.augment(jax.random.key(0), raw)
  return recipe, carry, jax.tree.map(jnp.asarray, batch)


def stepper(phase, carry, batch):
  """A function that makes one step and waits for it."""
  state, frozen = phase.init(jax.random.key(0), carry)
  step = jax.jit(functools.partial(phase.step, static=None), donate_argnums=0)
  held, rng = [jax.tree.map(jnp.copy, state)], jax.random.key(1)

  def run():
    held[0], metrics = step(held[0], frozen, {'train': batch}, rng)
    jax.block_until_ready(metrics)

  return run


def cached(recipe, carry, batch, folder):
  """The step of neighbourhoods on activations read from a file."""
  plan = pieces.Plan(recipe)
  teacher = carry['teacher']
  made = plan.layout(carry['student'].network, teacher.network)
  known, _ = staged.run(*teacher, {'image': batch['image']})
  files = {}
  for _, name in made.cut:
    files[name] = np.lib.format.open_memmap(
      pathlib.Path(folder, f'{name}.npy'), 'w+', np.float32, known[name].shape
    )
    files[name][:] = known[name]

  def with_known(variables, activations, params):
    total = 0.0
    variables = staged.merge(variables, {'params': params})
    for own in made.neighbourhoods:
      found, _ = staged.run(
        carry['student'].network,
        variables,
        {s: activations[t] for s, t in made.cut},
        only=own.student,
        train=True,
      )
      error = found[own.output[0]] - activations[own.output[1]]
      total += (error**2).mean()
    return total

  variables = carry['student'].variables
  params = staged.select(variables, made.stages)['params']
  gradient = jax.jit(jax.value_and_grad(with_known, argnums=2))

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
  roles = tuple(k for k in carry if k.startswith('k '))

  def phase(students=('student',), **plan):
    return pieces.train_phase(pieces.Plan(recipe, **plan), carry, students)

  kd = joint.joint(recipe, terms={'tempered': terms.tempered()})[0](carry)
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
        phase(roles, form=form), carry, batch
      )
    times = {name: [] for name in steps}
    for name, step in steps.items():  # compile
      begun = time.perf_counter()
      step()
      print(f'{name}: first step {time.perf_counter() - begun:.1f} s')
    for _ in range(arguments.rounds):
      for name, step in steps.items():
        begun = time.perf_counter()
        step()
        times[name].append(time.perf_counter() - begun)
  medians = {name: statistics.median(x) for name, x in times.items()}
  print(f'activations in the file: {size / 1024:.0f} KiB an image')
  for name, value in medians.items():
    print(f'{name:26} {1e3 * value:8.1f} ms {value / medians["kd"]:6.2f}')


if __name__ == '__main__':
  main()
