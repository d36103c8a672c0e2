"""Time of single convolutions and their gradients: XLA, oneDNN and PyTorch.

XLA's convolution runs with the default settings and with those of --fast_cpu,
and oneDNN's, as jaxlib contains it, with the latter. PyTorch runs with channels
first and with channels last. Each engine is a process of its own. They take
turns, and medians in milliseconds are printed: for the output, the gradient of
the image and that of the kernel. 'library' is what the library takes under
--fast_cpu, which for 1x1 convolutions is a matrix product and for depthwise
ones a sum of shifted images.

  python benchmarks/convolutions.py --torch_python=/path/to/torch/bin/python
"""

import argparse
import functools
import itertools
import math
import os
import sys
import time

import engines

# (height and width, channels, features, size of the kernel, stride, groups)
SHAPES = (
  (32, 3, 16, 3, 1, 1),
  (32, 16, 16, 3, 1, 1),
  (32, 16, 32, 3, 2, 1),
  (16, 32, 32, 3, 1, 1),
  (16, 32, 64, 3, 2, 1),
  (8, 64, 64, 3, 1, 1),
  (8, 128, 128, 3, 1, 1),
  (4, 512, 512, 3, 1, 1),
  (32, 16, 32, 1, 2, 1),
  (32, 16, 96, 1, 1, 1),
  (8, 240, 240, 1, 1, 1),
  (16, 96, 96, 3, 1, 96),
  (16, 96, 96, 3, 2, 96),
)
DIRECTIONS = ('output', 'image', 'kernel')


def jax_call(engine, shape, batch, direction):
  """Returns a call that waits for its result; None if there is no such form."""
  import jax
  import numpy as np

  from jaxdistill.networks.layers import convolutions, onednn, xla

  height, channels, features, size, stride, groups = shape
  rows = -(-height // stride)
  shapes = (
    (batch, height, height, channels),
    (size, size, channels // groups, features),
    (batch, rows, rows, features),
  )
  rng = np.random.default_rng(0)
  arrays = [jax.device_put(np.float32(rng.normal(size=s))) for s in shapes]
  function = convolutions.convolve if engine == 'library' else xla.convolve
  convolve = functools.partial(function, stride=stride, groups=groups)
  forms = {
    'output': lambda x, k, grad: convolve(x, k),
    'image': lambda x, k, grad: jax.linear_transpose(
      lambda x: convolve(x, k), x
    )(grad),
    'kernel': lambda x, k, grad: jax.linear_transpose(
      lambda k: convolve(x, k), k
    )(grad),
  }
  if engine == 'onednn':
    forms = {}
    if groups == 1:
      forms['output'] = lambda x, k, grad: onednn.convolve(x, k, stride=stride)
    if groups == stride == 1:
      forms['image'] = lambda x, k, grad: onednn.image_grad(grad, k)
  if direction not in forms:
    return None
  compiled = jax.jit(forms[direction])
  return lambda: jax.block_until_ready(compiled(*arrays))


def torch_call(engine, shape, batch, direction):
  """Returns the call of `jax_call` for PyTorch."""
  import torch

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  height, channels, features, size, stride, groups = shape
  layout = torch.contiguous_format
  if engine == 'torch_last':
    layout = torch.channels_last
  rows = -(-height // stride)
  x, kernel, grad = (
    torch.randn(*s).to(memory_format=layout)
    for s in (
      (batch, channels, height, height),
      (features, channels // groups, size, size),
      (batch, features, rows, rows),
    )
  )
  padding = [size // 2] * 2
  if direction == 'output':
    return lambda: torch.nn.functional.conv2d(
      x, kernel, None, stride, padding, groups=groups
    )
  mask = [direction == 'image', direction == 'kernel', False]
  strides, ones, zeros = [stride] * 2, [1, 1], [0, 0]
  return lambda: torch.ops.aten.convolution_backward(
    *(grad, x, kernel, None, strides, padding, ones, False, zeros),
    *(groups, mask),
  )


def work(options):
  """Answers requests, an index of a shape and a direction, with milliseconds.

  A form that does not exist is answered with NaN.
  """
  is_torch = options.engine.startswith('torch')
  make = functools.cache(torch_call if is_torch else jax_call)
  clock = time.process_time if options.processor_time else time.perf_counter
  for line in sys.stdin:
    index, direction = line.split()
    call = make(options.engine, SHAPES[int(index)], options.batch, direction)
    if call is None:
      engines.answer(math.nan)
      continue
    call()
    start = clock()
    call()
    engines.answer(1000 * (clock() - start))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--torch_python', default=sys.executable)
  parser.add_argument('--repeats', type=int, default=9)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument(
    '--processor_time',
    action='store_true',
    help='measure the time of the processor, for one core of a busy machine',
  )
  parser.add_argument('--engine', help='the engine that this process runs')
  options = parser.parse_args()
  if options.engine:
    work(options)
    return
  from jaxdistill.training import fast_cpu

  # The programs here are not spread over several devices.
  fast = fast_cpu.fastest(os.environ, cores=1)
  kinds = {
    'XLA': (sys.executable, 'xla', {}),
    'XLA fast': (sys.executable, 'xla', fast),
    'oneDNN': (sys.executable, 'onednn', fast),
    'library': (sys.executable, 'library', fast),
  }
  if engines.has_torch(options.torch_python):
    kinds['torch'] = (options.torch_python, 'torch', {})
    kinds['torch last'] = (options.torch_python, 'torch_last', {})
  arguments = [f'--batch={options.batch}']
  arguments += ['--processor_time'] if options.processor_time else []
  running = {
    name: engines.Engine(
      [python, __file__, f'--engine={engine}', *arguments], environment
    )
    for name, (python, engine, environment) in kinds.items()
  }
  columns = ('shape', 'ms', *running)
  print('|', ' | '.join(columns), '|')
  print('|---' * len(columns) + '|')
  for (i, shape), direction in itertools.product(enumerate(SHAPES), DIRECTIONS):
    medians = engines.medians(running, options.repeats, f'{i} {direction}', 1)
    row = ('-' if math.isnan(m) else f'{m:.1f}' for m in medians.values())
    print('|', ' | '.join((str(shape), direction, *row)), '|', flush=True)
  for engine in running.values():
    engine.close()


if __name__ == '__main__':
  main()
