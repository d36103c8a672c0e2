"""Time of a training step of a detector, compared with plain PyTorch.

A narrow RetinaNet on ResNet-18 for images of 160x120, as in
configs/detection/bccd.py. A step assigns anchors to 13 boxes for each image,
and takes the focal loss and smooth L1, their gradient, and SGD with momentum.
The forward pass of the network in inference mode is measured by itself, too.
Both programs have the same network, and the parity test of `retinanet` uses the
same PyTorch code. Each engine runs in a process of its own. They take turns,
and the script prints medians and the ratios of the times.

  python benchmarks/detection.py --torch_python=/path/to/torch/bin/python
"""

import argparse
import itertools
import os
import pathlib
import statistics
import sys
import time

import engines

CLASSES, HEIGHT, WIDTH, BOXES = 3, 120, 160, 13
RATE, DECAY = 0.01, 1e-4


def boxes_of(batch):
  """Returns random boxes `[B, M, 4]` and their classes `[B, M]`."""
  import numpy as np

  rng = np.random.default_rng(0)
  corner = rng.uniform(0, (HEIGHT - 40, WIDTH - 40), (batch, BOXES, 2))
  sides = rng.uniform(12, 40, (batch, BOXES, 2))
  boxes = np.concatenate([corner, corner + sides], -1).astype(np.float32)
  return boxes, rng.integers(0, CLASSES, (batch, BOXES)).astype(np.int32)


def jax_steps(options):
  """Returns {request: function that runs once and waits}."""
  import jax
  import numpy as np

  import jaxdistill as jd
  from jaxdistill.networks.surgery import detectors

  boxes, classes = boxes_of(options.batch)
  image = np.random.default_rng(0).integers(
    0, 256, (options.batch, HEIGHT, WIDTH, 3), np.uint8
  )
  columns = {'image': image, 'boxes': boxes, 'classes': classes}
  data = jd.data.from_columns(
    columns, columns, num_classes=CLASSES, validation=0
  )
  recipe = jd.recipe(
    data,
    jd.tasks.detection(),
    epochs=1000,
    batch_size=options.batch,
    optimizer=jd.optimizers.sgd(
      jd.optimizers.constant(rate=RATE), weight_decay=DECAY
    ),
  )
  width = options.width
  backbone = jd.networks.create(
    'resnet18',
    num_classes=CLASSES,
    stem_width=width,
    widths=tuple(width * 2**i for i in range(4)),
  )
  network = detectors.retinanet(
    backbone, num_classes=CLASSES, width=2 * width, depth=options.depth
  )
  model = jd.new_model(network, recipe)
  phase = jd.methods.supervised(recipe)[0]({'student': model})
  rng = jax.random.key(0)
  batch = jax.jit(recipe.stream.augment)(rng, columns)
  step = jax.jit(
    lambda state, frozen, batch: phase.step(
      state, frozen, {'train': batch}, rng, None
    ),
    donate_argnums=0,
  )
  state, frozen = phase.init(rng, {'student': model})
  current = [state]

  def train():
    current[0], metrics = step(current[0], frozen, batch)
    jax.block_until_ready(metrics)

  forward = jax.jit(
    lambda variables, image: jd.networks.apply(network, variables, image)
  )
  return {
    'step': train,
    'forward': lambda: jax.block_until_ready(
      forward(model.variables, batch['image'])
    ),
  }


def torch_steps(options):
  """Returns the functions of `jax_steps` for PyTorch."""
  tests = pathlib.Path(__file__).parents[1] / 'tests' / 'networks'
  sys.path.insert(0, str(tests))
  import plain_detector
  import torch

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  last = 'last' in options.engine
  layout = torch.channels_last if last else torch.contiguous_format
  widths = [options.width * 2**i for i in range(4)]
  network = plain_detector.RetinaNet(
    CLASSES, widths, 2 * options.width, options.depth
  ).to(memory_format=layout)
  optimizer = torch.optim.SGD(
    network.parameters(), RATE, 0.9, weight_decay=DECAY, nesterov=True
  )
  image = torch.randn(options.batch, 3, HEIGHT, WIDTH)
  image = image.to(memory_format=layout)
  boxes, classes = map(torch.tensor, boxes_of(options.batch))
  *_, sizes = network(image)
  anchors = plain_detector.anchors(sizes)

  def train():
    logits, offsets, _ = network(image)
    parts = [
      plain_detector.losses(*rows[:2], anchors, *rows[2:])
      for rows in zip(logits, offsets, boxes, classes.long())
    ]
    loss = sum(sum(part) for part in parts) / options.batch
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

  def forward():
    network.eval()
    with torch.no_grad():
      network(image)
    network.train()

  return {'step': train, 'forward': forward}


def work(options):
  """Answers the requests on the standard input: milliseconds of a run."""
  make = jax_steps if options.engine.startswith('jax') else torch_steps
  runs = make(options)
  clock = time.process_time if options.processor_time else time.perf_counter
  for line in sys.stdin:
    run = runs[line.strip()]
    run()
    start = clock()
    for _ in range(options.steps):
      run()
    engines.answer(1e3 * (clock() - start) / options.steps)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--width', type=int, default=16, help='of the stem')
  parser.add_argument('--depth', type=int, default=2, help='of the head')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--steps', type=int, default=3, help='per measurement')
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument(
    '--processor_time',
    action='store_true',
    help='measure processor time instead of wall time, which suits one core of '
    'a machine that does other work, too',
  )
  parser.add_argument('--torch_python', default=sys.executable)
  parser.add_argument('--engine', help='the engine that this process runs')
  options = parser.parse_args()
  if options.engine:
    work(options)
    return
  running = start_engines(options)
  print(f'RetinaNet on ResNet-18, {HEIGHT}x{WIDTH}, batch {options.batch}')
  for request in ('step', 'forward'):
    times = engines.rounds(running, options.repeats, request)
    for name, numbers in times.items():
      print(f'{request:8}{name:14}{statistics.median(numbers):9.1f} ms')
    for name, other in itertools.product(times, times):
      if name.startswith('jax') and other.startswith('torch'):
        ratio = engines.ratio(times[other], times[name])
        print(f'{request:8}{name} is {ratio} x as fast as {other}')
  for engine in running.values():
    engine.close()


def start_engines(options):
  """Starts a process for each engine; returns name -> `Engine`."""
  from jaxdistill.training import fast_cpu

  arguments = [
    f'--{key}={getattr(options, key)}'
    for key in ('width', 'depth', 'batch', 'steps')
  ]
  arguments += ['--processor_time'] if options.processor_time else []
  # The programs here are not spread over several devices.
  fast = fast_cpu.fastest(os.environ, cores=1)
  kinds = {'jax': ({}, sys.executable), 'jax fast_cpu': (fast, sys.executable)}
  if engines.has_torch(options.torch_python):
    kinds |= {
      name: ({}, options.torch_python) for name in ('torch', 'torch last')
    }
  return {
    name: engines.Engine(
      [python, __file__, f'--engine={name}', *arguments], environment
    )
    for name, (environment, python) in kinds.items()
  }


if __name__ == '__main__':
  main()
