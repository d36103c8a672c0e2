"""Speed of one step of knowledge distillation, compared with plain PyTorch.

ResNet-56 teaches ResNet-20 on 32x32 images, or any other pair of networks for
small images. A step is the teacher's forward pass, the student's forward and
backward pass, and SGD with momentum and weight decay. Three rates are measured
in images per second: that of the step by itself, on one batch that stays on the
device; that of the step with its input, which is 50,000 images in memory that
are cropped with padding 4 and flipped; and, with --files, that of the step with
input from PNG files. JAX decodes files in worker processes, and crops and flips
images on the device. PyTorch does all of this in the worker processes of a
DataLoader.

PyTorch runs with channels first and with channels last, JAX with its default
settings and with those of --fast_cpu. Each of these engines is a process of its
own. They take turns. Medians are printed, and for each pair of engines the
median and the quartiles of the ratios in each turn. At the end, the peak of the
resident memory of each process while it takes steps is printed, and what XLA
plans for the arguments and temporary arrays of a step.

  python benchmarks/kd_step.py --torch_python=/path/to/torch/bin/python
  python benchmarks/kd_step.py --teacher=vgg13 --student=cifar_mobilenet_v2
"""

import argparse
import atexit
import functools
import itertools
import os
import pathlib
import statistics
import sys
import time

import engines
import loading

CLASSES, SIZE, IMAGES, FILES = 100, 32, 50_000, 10_000
TEMPERATURE, WEIGHT, RATE, DECAY = 4.0, 0.9, 0.05, 5e-4


def jax_phase(options):
  """Returns recipe, phase, and the state and constants that its steps need."""
  import jax
  import numpy as np

  import jaxdistill as jd

  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (IMAGES, SIZE, SIZE, 3), np.uint8)
  label = np.arange(IMAGES) % CLASSES
  dataset = jd.data.from_arrays(
    image, label, image[:10], label[:10], validation=0, num_classes=CLASSES
  )
  recipe = jd.recipe(
    dataset,
    epochs=100,
    batch_size=options.batch,
    augment=jd.data.crop_flip(),
    optimizer=jd.optimizers.sgd(
      jd.optimizers.constant(rate=RATE), weight_decay=DECAY
    ),
  )
  carry = {}
  for role in ('student', 'teacher'):
    network = jd.networks.create(
      getattr(options, role), num_classes=CLASSES, dtype=options.dtype
    )
    carry[role] = jd.new_model(network, recipe)
  if options.alone:
    method = jd.methods.supervised(recipe)
  else:
    method = jd.methods.kd(recipe)
  phase = method[0](carry)
  state, constants = phase.init(jax.random.key(0), carry)
  return dataset, recipe, phase, state, constants


def jax_steps(options):
  """Returns {request: function of a number of steps, which waits for them}."""
  import jax
  import numpy as np

  from jaxdistill.core import random
  from jaxdistill.data.loading import batches, streaming
  from jaxdistill.data.sources import folder
  from jaxdistill.training.distributed import sharding

  dataset, recipe, phase, state, constants = jax_phase(options)
  mesh = sharding.make_mesh()
  state, constants = sharding.place((state, constants), mesh)

  @functools.partial(jax.jit, donate_argnums=0, static_argnames='fixed')
  def step(state, constants, batch, rng, index, *, fixed):
    rng = jax.random.fold_in(rng, index)
    if not fixed:
      batch = recipe.stream.augment(random.step_key(rng, 'augment'), batch)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return phase.step(state, constants, {'train': batch}, rng, None)

  common = options.batch, (0,), sharding.rows(mesh)
  source = batches.Batches(dataset.splits['train'], *common)
  first = jax.jit(recipe.stream.augment)(jax.random.key(0), source(0))
  batch_of = {'step': lambda _: first, 'input': source}
  if options.files:
    split = folder.folder(options.files, validation=0, stream=True).splits
    batch_of['files'] = streaming.StreamedBatches(split['train'], *common)
    atexit.register(batch_of['files'].close)
  # A list, so that each step can replace the state that it has donated.
  current, rng = [state], jax.random.key(1)

  @functools.cache
  def program(fixed):
    batch = first if fixed else source(0)
    arguments = current[0], constants, batch, rng, np.int32(0)
    return step.lower(*arguments, fixed=fixed).compile()

  def run(request, count):
    current[0], metrics = program(request == 'step')(
      current[0], constants, batch_of[request](count), rng, np.int32(count)
    )
    return metrics['loss']

  def planned():
    analysis = program(True).memory_analysis()
    each = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    return each * mesh.size

  def many(request):
    counts = itertools.count()

    def steps(number):
      for _ in range(number):
        loss = run(request, next(counts))
      jax.block_until_ready(loss)

    return steps

  return {**{name: many(name) for name in batch_of}, 'planned': planned}


def reference(name):
  """Returns the class of a network in PyTorch and all arguments but the last.

  Args:
    name: the name of a network of the library.
  """
  mobile = {
    'cifar_mobilenet_v2': ('MobileNetV2', (0.5, 1280)),
    'cifar_shufflenet_v1': ('ShuffleNetV1', (24, (240, 480, 960))),
    'cifar_shufflenet_v2': ('ShuffleNetV2', (24, (116, 232, 464), 1024)),
  }
  if name in mobile:
    return mobile[name]
  if name.startswith('wrn'):
    _, depth, width = name.split('_')
    return 'WideResNet', (int(depth), int(width), 16)
  if name.startswith('vgg'):
    count = {'vgg8': 1, 'vgg13': 2}[name]
    return 'VGG', ([[width] * count for width in (64, 128, 256, 512, 512)],)
  depth, _, factor = name.removeprefix('resnet').partition('x')
  widths = [width * int(factor or 1) for width in (16, 32, 64)]
  return 'ResNet', (int(depth), 32 if factor else 16, widths)


def torch_steps(options):
  """Returns the functions of `jax_steps` for PyTorch, without 'planned'."""
  tests = pathlib.Path(__file__).parents[1] / 'tests' / 'networks'
  sys.path.insert(0, str(tests))
  import rep_distiller
  import torch
  from torch.nn import functional

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  last = 'last' in options.engine
  layout = torch.channels_last if last else torch.contiguous_format
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  torch.backends.cuda.matmul.allow_tf32 = True
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True

  def make(name):
    kind, arguments = reference(name)
    model = getattr(rep_distiller, kind)(*arguments, CLASSES)
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
        teacher_logits = None if options.alone else teacher(image)
      logits = student(image)
    loss = functional.cross_entropy(logits.float(), label)
    if teacher_logits is not None:
      soft = functional.kl_div(
        functional.log_softmax(logits.float() / TEMPERATURE, 1),
        functional.softmax(teacher_logits.float() / TEMPERATURE, 1),
        reduction='batchmean',
      )
      loss = (1 - WEIGHT) * loss + WEIGHT * TEMPERATURE**2 * soft
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

  images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
  labels = torch.arange(IMAGES) % CLASSES

  class Augmented(torch.utils.data.Dataset):
    def __init__(self, items, read):
      self.items, self.read = items, read

    def __len__(self):
      return len(self.items)

    def __getitem__(self, i):
      image = functional.pad(self.read(self.items[i]), (4, 4, 4, 4))
      top, left = torch.randint(0, 9, (2,)).tolist()
      image = image[:, top : top + SIZE, left : left + SIZE]
      if torch.rand(()) < 0.5:
        image = image.flip(2)
      return (image.float() - 128) / 64, labels[i]

  def decoded(path):
    image = np.array(PIL.Image.open(path).convert('RGB'))
    return torch.from_numpy(image).permute(2, 0, 1)

  def batches(*items):
    loader = torch.utils.data.DataLoader(
      Augmented(*items),
      options.batch,
      shuffle=True,
      drop_last=True,
      num_workers=len(os.sched_getaffinity(0)),
      persistent_workers=True,
      pin_memory=device == 'cuda',
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))

  image = torch.randn(options.batch, 3, SIZE, SIZE).to(device)
  fixed = (image.to(memory_format=layout), labels[: options.batch].to(device))

  def many(source):
    def steps(number):
      for _ in range(number):
        step(*next(source))
      if device == 'cuda':
        torch.cuda.synchronize()

    return steps

  steps = {
    'step': many(itertools.repeat(fixed)),
    'input': many(batches(images, lambda image: image)),
  }
  if options.files:
    import numpy as np
    import PIL.Image

    paths = sorted(pathlib.Path(options.files).glob('*/*'))
    steps['files'] = many(batches(paths, decoded))
  return steps


def work(options):
  """Answers the requests on the standard input, one on each line.

  The answers to 'step', 'input' and 'files' are images per second, those to
  'memory' and 'planned' are numbers of bytes.
  """
  make = jax_steps if options.engine.startswith('jax') else torch_steps
  steps = make(options)
  for line in sys.stdin:
    request = line.strip()
    if request == 'memory':
      engines.answer(
        engines.peak_memory(functools.partial(steps['step'], options.steps))
      )
      continue
    run = steps[request]
    if request == 'planned':
      engines.answer(run())
      continue
    # Batches that were loaded while other engines were measured must not count:
    # at most five for each worker, and three more.
    workers = len(os.sched_getaffinity(0))
    run(1 if request == 'step' else 5 * workers + 3)
    clock = time.process_time if options.processor_time else time.perf_counter
    start = clock()
    run(options.steps)
    elapsed = clock() - start
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
    '--alone', action='store_true', help='train the student without a teacher'
  )
  parser.add_argument(
    '--processor_time',
    action='store_true',
    help='measure the time of the processor instead of that of the clock, for '
    'one core of a machine that does other work, too',
  )
  parser.add_argument('--cores', type=int, help='use only so many cores')
  parser.add_argument(
    '--without_input', action='store_true', help='measure the step by itself'
  )
  parser.add_argument(
    '--engines',
    nargs='*',
    help='the names of the engines that are measured; by default all of them',
  )
  parser.add_argument('--torch_python', default=sys.executable)
  parser.add_argument(
    '--compile', action='store_true', help='measure torch.compile, too'
  )
  parser.add_argument(
    '--files', help='a folder of PNG files; they are written if it is missing'
  )
  parser.add_argument('--engine', help='the engine that this process runs')
  options = parser.parse_args()
  if options.engine:
    work(options)
    return
  if options.cores:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
  requests = ['step'] if options.without_input else ['step', 'input']
  if options.files:
    requests.append('files')
    if not os.path.exists(options.files):
      os.makedirs(options.files)
      loading.write_images(options.files, FILES, SIZE)
  running = start_engines(options)
  teacher = '' if options.alone else f'{options.teacher} -> '
  print(f'{teacher}{options.student}, batch {options.batch}')
  for request in requests:
    rates = engines.rounds(running, options.repeats, request)
    for name, numbers in rates.items():
      ratios = (
        f'{engines.ratio(numbers, others)} x {other}'
        for other, others in rates.items()
        if other != name
      )
      median = statistics.median(numbers)
      print(f'{request:6} {name:14}{median:9.0f} images/s ', ', '.join(ratios))
  for name, engine in running.items():
    line = f'{engine.measure("memory") / 2**20:9.0f} MiB at the peak'
    if name.startswith('jax'):
      planned = engine.measure('planned') / 2**20
      line += f', {planned:.0f} MiB of arguments and temporaries'
    print(f'memory {name:14}{line}')
    engine.close()


def start_engines(options):
  """Starts a process for each engine; returns name -> `Engine`."""
  from jaxdistill.core import cpu
  from jaxdistill.training import fast_cpu

  arguments = [
    f'--{key}={getattr(options, key)}'
    for key in ('student', 'teacher', 'batch', 'dtype', 'steps', 'files')
    if getattr(options, key)
  ]
  flags = ('alone', 'processor_time')
  arguments += [f'--{key}' for key in flags if getattr(options, key)]
  fast = fast_cpu.fastest(os.environ, cpu.cores())
  kinds = {'jax': ({}, sys.executable), 'jax fast_cpu': (fast, sys.executable)}
  if engines.has_torch(options.torch_python):
    names = ['torch', 'torch last']
    names += ['torch compile'] if options.compile else []
    kinds |= {name: ({}, options.torch_python) for name in names}
  if options.engines:
    kinds = {name: kinds[name] for name in options.engines}
  return {
    name: engines.Engine(
      [python, __file__, f'--engine={name}', *arguments], environment
    )
    for name, (environment, python) in kinds.items()
  }


if __name__ == '__main__':
  main()
