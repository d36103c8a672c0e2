"""A step of KD with a teacher that runs, and with its stored outputs.

The steps take turns in one process. Both begin with uint8 images on the device
and augment them: the step with the teacher augments the batch, and the step
with stored outputs draws a view of each image. The script prints medians of the
time of a step, and the median of the ratios in each turn. On a CPU, this is the
processor time of all threads, which other programs affect little. On a GPU, it
is wall time.

  python benchmarks/cached_teacher.py --teacher resnet56 --student resnet20
  python benchmarks/cached_teacher.py --teacher efficientnet_lite0 --size 96
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import methods, networks, optimizers
from jaxdistill.core import random
from jaxdistill.core.types import TEACHER_OUTPUTS, Model
from jaxdistill.data.sources import arrays
from jaxdistill.data.transforms import augment as augment_lib
from jaxdistill.data.transforms import views
from jaxdistill.networks import table
from jaxdistill.phases import recipes
from jaxdistill.tasks import classification
from jaxdistill.training import programs
from jaxdistill.training.distributed import sharding

WAYS = ('teacher', 'stored')


def make_step(arguments, way):
  """Returns a function that takes a step of KD."""
  generator = np.random.default_rng(0)
  size, classes = arguments.batch_size, arguments.classes
  shape = (2 * size, arguments.size, arguments.size, 3)
  image = generator.integers(0, 256, shape, np.uint8)
  label = np.arange(len(image)) % classes
  dataset = arrays.from_arrays(
    image, label, image, label, validation=0, num_classes=classes
  )
  augment = augment_lib.crop_flip(padding=arguments.size // 8)
  if way == 'stored':
    outputs = generator.normal(size=(len(image), arguments.views, classes))
    column = {TEACHER_OUTPUTS: outputs.astype(np.float16)}
    train = {**dataset.splits['train'], **column}
    dataset = dataset._replace(splits={**dataset.splits, 'train': train})
    augment = views.drawn(augment, arguments.views)
  recipe = recipes.recipe(
    dataset,
    classification(),
    epochs=10,
    batch_size=size,
    augment=augment,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.05)),
  )
  models = {
    role: recipes.new_model(
      networks.create(getattr(arguments, role), num_classes=classes), recipe
    )
    for role in ('student', 'teacher')
  }
  if way == 'stored':
    models['teacher'] = Model(models['teacher'].network, {})
  phase = methods.kd(recipe)[0](models)
  start, key = random.phase_keys(0, 0)
  state, frozen = phase.init(start, models)
  batch = {k: jnp.asarray(v[:size]) for k, v in dataset.splits['train'].items()}
  inputs = frozen, {'train': batch}, key
  mesh = sharding.make_mesh()
  traced = programs.trace(phase, (state, *inputs), mesh)
  layout = sharding.layout(state, mesh)
  compiled = programs.compiled(programs.shared([traced]), layout, mesh)(None, 1)
  run = [state, traced.totals]

  def take():
    run[:] = compiled(*run, *inputs, np.int32(0))
    jax.block_until_ready(run)

  return take


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--teacher', default='resnet56')
  parser.add_argument('--student', default='resnet20')
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--classes', type=int, default=100)
  parser.add_argument('--batch_size', type=int, default=64)
  parser.add_argument('--views', type=int, default=8)
  parser.add_argument('--repeats', type=int, default=15)
  arguments = parser.parse_args()
  is_cpu = jax.default_backend() == 'cpu'
  clock = time.process_time if is_cpu else time.perf_counter
  steps = {way: make_step(arguments, way) for way in WAYS}
  times = {way: [] for way in WAYS}
  for i in range(arguments.repeats + 1):
    for way, step in steps.items():
      start = clock()
      step()
      if i:  # the first step compiles
        times[way].append(clock() - start)
  ratios = [x / y for x, y in zip(times['teacher'], times['stored'])]
  shape = arguments.size, arguments.size, 3
  teacher, student = (
    table.summary(networks.create(name, num_classes=arguments.classes), shape)
    for name in (arguments.teacher, arguments.student)
  )
  milliseconds = [1e3 * statistics.median(times[way]) for way in WAYS]
  expected = 1 + teacher.macs / (3 * student.macs)
  print(
    '| teacher -> student | pixels | teacher runs, ms | stored, ms |', end=''
  )
  print(' ratio | ratio by multiply-adds |\n' + '|---' * 6 + '|')
  print(
    f'| {arguments.teacher} -> {arguments.student} | {arguments.size} | '
    f'{milliseconds[0]:.1f} | {milliseconds[1]:.1f} | '
    f'{statistics.median(ratios):.2f} | {expected:.2f} |'
  )


if __name__ == '__main__':
  main()
