"""One step of knowledge distillation, beside plain PyTorch.

ResNet-56 -> ResNet-20 on 32x32 images: the teacher's forward pass, the
student's forward and backward pass, and SGD with momentum and weight decay.
Images per second of the step alone, on one batch that lies on the device; and
with each side's input: 50,000 images in memory, cropped with padding 4 and
flipped, on the device here, by a DataLoader's workers there. PyTorch runs
channels first and channels last, JAX as it is and in --fast_cpu's environment.
Each is its own process; they take turns, and medians and ratios are printed.

  python benchmarks/kd_step.py --torch_python=/path/to/torch/bin/python
"""

import argparse
import functools
import itertools
import os
import pathlib
import sys
import time

import engines

CLASSES, SIZE, IMAGES = 100, 32, 50_000
TEMPERATURE, WEIGHT, RATE, DECAY = 4.0, 0.9, 0.05, 5e-4


def jax_steps(options):
  """{what: function that makes a training step and waits for it}."""
  import jax
  import numpy as np

  from jaxdistill import networks, optimizers, recipes
  from jaxdistill.data import arrays, augment, batches
  from jaxdistill.methods import joint
  from jaxdistill.tasks import classification
  from jaxdistill.types import Model

  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8)
  label = np.arange(IMAGES) % CLASSES
  dataset = arrays.from_arrays(
    image, label, image[:10], label[:10], validation=0, num_classes=CLASSES
  )
  recipe = recipes.recipe(
    dataset,
    classification.classification(),
    epochs=100,
    batch_size=options.batch,
    augment=augment.crop_flip(),
    optimizer=optimizers.sgd(
      optimizers.constant(rate=RATE), weight_decay=DECAY
    ),
  )
  carry = {}
  for role, name in (
    ('student', options.student),
    ('teacher', options.teacher),
  ):
    network = networks.NETWORKS[name](num_classes=CLASSES, dtype=options.dtype)
    image = {'image': recipe.example['image']}
    variables = networks.init(network, jax.random.key(0), image)
    carry[role] = Model(network, variables)
  method = joint.supervised(recipe) if options.alone else joint.kd(recipe)
  phase = method[0](carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  del carry

  @functools.partial(jax.jit, donate_argnums=0, static_argnames='fixed')
  def step(state, frozen, batch, rng, index, *, fixed):
    rng = jax.random.fold_in(rng, index)
    if not fixed:
      batch = recipe.stream.augment(rng, batch)
    return phase.step(state, frozen, {'train': batch}, rng, None)

  source = batches.Batches(dataset.splits['train'], options.batch, (0,))
  first = jax.jit(recipe.stream.augment)(jax.random.key(0), source(0))
  held, rng = [state], jax.random.key(1)

  def run(fixed, count):
    batch = first if fixed else source(count)
    held[0], metrics = step(
      held[0], frozen, batch, rng, np.int32(count), fixed=fixed
    )
    return metrics['loss']

  def memory():
    lowered = step.lower(held[0], frozen, first, rng, np.int32(0), fixed=True)
    found = lowered.compile().memory_analysis()
    return found.argument_size_in_bytes + found.temp_size_in_bytes

  def many(fixed):
    counts = itertools.count()

    def steps(number):
      for _ in range(number):
        loss = run(fixed, next(counts))
      jax.block_until_ready(loss)

    return steps

  return {'step': many(True), 'input': many(False), 'memory': memory}


def torch_steps(options):
  """The same of PyTorch."""
  tests = pathlib.Path(__file__).parents[1] / 'tests' / 'networks'
  sys.path.insert(0, str(tests))
  import rep_distiller
  import torch
  from torch.nn import functional

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  last = 'last' in options.engine
  layout = torch.channels_last if last else torch.contiguous_format
  torch.set_num_threads(os.cpu_count() or 1)
  torch.backends.cuda.matmul.allow_tf32 = True
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True

  def make(name):
    if name.startswith('wrn'):
      _, depth, width = name.split('_')
      model = rep_distiller.WideResNet(int(depth), int(width), 16, CLASSES)
    else:
      depth = int(name.removeprefix('resnet'))
      model = rep_distiller.ResNet(depth, 16, (16, 32, 64), CLASSES)
    return model.to(device, memory_format=layout)

  student, teacher = make(options.student), make(options.teacher).eval()
  if 'compile' in options.engine:
    student, teacher = torch.compile(student), torch.compile(teacher)
  optimizer = torch.optim.SGD(
    student.parameters(), RATE, 0.9, weight_decay=DECAY, nesterov=True
  )
  half = torch.autocast(
    device, torch.bfloat16, enabled=options.dtype == 'bfloat16'
  )

  def step(image, label):
    image = image.to(device, non_blocking=True).to(memory_format=layout)
    label = label.to(device, non_blocking=True)
    with half:
      with torch.no_grad():
        target = teacher(image) if not options.alone else None
      answer = student(image)
    loss = functional.cross_entropy(answer.float(), label)
    if target is not None:
      soft = functional.kl_div(
        functional.log_softmax(answer.float() / TEMPERATURE, 1),
        functional.softmax(target.float() / TEMPERATURE, 1),
        reduction='batchmean',
      )
      loss = (1 - WEIGHT) * loss + WEIGHT * TEMPERATURE**2 * soft
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

  images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
  labels = torch.arange(IMAGES) % CLASSES

  class Augmented(torch.utils.data.Dataset):
    def __len__(self):
      return IMAGES

    def __getitem__(self, i):
      image = functional.pad(images[i], (4, 4, 4, 4))
      top, left = torch.randint(0, 9, (2,)).tolist()
      image = image[:, top : top + SIZE, left : left + SIZE]
      if torch.rand(()) < 0.5:
        image = image.flip(2)
      return (image.float() - 128) / 64, labels[i]

  loader = torch.utils.data.DataLoader(
    Augmented(),
    options.batch,
    shuffle=True,
    drop_last=True,
    num_workers=os.cpu_count() or 1,
    persistent_workers=True,
    pin_memory=device == 'cuda',
  )
  image = torch.randn(options.batch, 3, SIZE, SIZE).to(device)
  fixed = (image.to(memory_format=layout), labels[: options.batch].to(device))

  def many(source):
    def steps(number):
      for _ in range(number):
        step(*next(source))
      if device == 'cuda':
        torch.cuda.synchronize()

    return steps

  forever = itertools.chain.from_iterable(itertools.repeat(loader))
  return {'step': many(itertools.repeat(fixed)), 'input': many(forever)}


def work(options):
  """Answers 'step' and 'input' with images per second, 'memory' with bytes."""
  make = jax_steps if options.engine.startswith('jax') else torch_steps
  steps = make(options)
  for line in sys.stdin:
    run = steps[line.strip()]
    if line.strip() == 'memory':
      engines.answer(run())
      continue
    # What was loaded ahead while others were measured does not count: two
    # batches for each worker of a DataLoader, and the one at hand.
    run(2 * (os.cpu_count() or 1) + 1 if line.strip() == 'input' else 2)
    start = time.perf_counter()
    run(options.steps)
    elapsed = time.perf_counter() - start
    engines.answer(options.steps * options.batch / elapsed)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--student', default='resnet20')
  parser.add_argument('--teacher', default='resnet56')
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--steps', type=int, default=10, help='per measurement')
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument(
    '--alone', action='store_true', help="the student's own training step"
  )
  parser.add_argument('--torch_python', default=sys.executable)
  parser.add_argument(
    '--compile', action='store_true', help='torch.compile too'
  )
  parser.add_argument('--engine', help='what this process runs')
  options = parser.parse_args()
  if options.engine:
    work(options)
    return
  from jaxdistill import fast_cpu  # PyTorch's Python lacks it

  arguments = [
    f'--{key}={getattr(options, key)}'
    for key in ('student', 'teacher', 'batch', 'dtype', 'steps')
  ] + (['--alone'] if options.alone else [])
  fast = fast_cpu.environment({})
  kinds = {'jax': ({}, sys.executable), 'jax fast_cpu': (fast, sys.executable)}
  if engines.has_torch(options.torch_python):
    names = ['torch', 'torch last']
    names += ['torch compile'] if options.compile else []
    kinds |= {name: ({}, options.torch_python) for name in names}
  running = {
    name: engines.Engine(
      [python, __file__, f'--engine={name}', *arguments], environment
    )
    for name, (environment, python) in kinds.items()
  }
  teacher = '' if options.alone else f'{options.teacher} -> '
  print(f'{teacher}{options.student}, batch {options.batch}')
  for what in ('step', 'input'):
    rates = engines.medians(running, options.repeats, what)
    for name, rate in rates.items():
      ratios = (f'{rate / r:.2f} x {other}' for other, r in rates.items())
      print(f'{what:6} {name:14}{rate:9.0f} images/s ', ', '.join(ratios))
  for name, engine in running.items():
    if name.startswith('jax'):
      mebibytes = engine.measure('memory') / 2**20
      print(
        f'memory {name:14}{mebibytes:9.0f} MiB of arguments and temporaries'
      )
    engine.close()


if __name__ == '__main__':
  main()
