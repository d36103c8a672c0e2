"""Time of a training step of mobile networks, compared with plain PyTorch.

MobileNetV2 of half width, ShuffleNetV1 and ShuffleNetV2 for 32x32 images, in
batches of 64. A step is cross entropy, its gradient, and SGD with momentum.
Each engine is a process of its own. They take turns, and medians and their
ratios are printed. PyTorch runs with channels first and with channels last, JAX
with its default settings and with those of --fast_cpu.

  python benchmarks/networks.py --torch_python=/path/to/torch/bin/python
"""

import argparse
import os
import pathlib
import sys
import time

import engines

# Our name -> the class of the reference and its arguments.
NETWORKS = {
  'cifar_mobilenet_v2': ('MobileNetV2', (0.5, 1280)),
  'cifar_shufflenet_v1': ('ShuffleNetV1', (24, (240, 480, 960))),
  'cifar_shufflenet_v2': ('ShuffleNetV2', (24, (116, 232, 464), 1024)),
}
CLASSES, SIZE = 100, 32


def jax_steps(batch_size):
  """Returns {network: function that trains one step and waits for it}."""
  import jax
  import jax.numpy as jnp
  import optax

  from jaxdistill import networks

  def make(name):
    network = networks.create(name, num_classes=CLASSES)
    rng = jax.random.key(0)
    batch = {
      'image': jax.random.normal(rng, (batch_size, SIZE, SIZE, 3)),
      'label': jnp.arange(batch_size) % CLASSES,
    }
    optimizer = optax.sgd(0.1, momentum=0.9)

    def loss(params, statistics, batch):
      variables = {'params': params, 'batch_stats': statistics}
      features, updates = networks.run(network, variables, batch, train=True)
      losses = optax.softmax_cross_entropy_with_integer_labels(
        features['head'], batch['label']
      )
      return losses.mean(), updates['batch_stats']

    def step(state, batch):
      params, statistics, momentum = state
      grads, statistics = jax.grad(loss, has_aux=True)(
        params, statistics, batch
      )
      updates, momentum = optimizer.update(grads, momentum)
      return optax.apply_updates(params, updates), statistics, momentum

    variables = networks.init(network, rng, {'image': batch['image']})
    params = variables['params']
    state = [params, variables['batch_stats'], optimizer.init(params)]
    compiled = jax.jit(step, donate_argnums=0)

    def run():
      state[:] = jax.block_until_ready(compiled(tuple(state), batch))

    return run

  return {name: make(name) for name in NETWORKS}


def torch_steps(batch_size, channels_last):
  """Returns the functions of `jax_steps` for PyTorch."""
  tests = pathlib.Path(__file__).parents[1] / 'tests' / 'networks'
  sys.path.insert(0, str(tests))
  import rep_distiller
  import torch
  from torch.nn import functional

  layout = torch.channels_last if channels_last else torch.contiguous_format
  torch.set_num_threads(len(os.sched_getaffinity(0)))

  def make(name):
    kind, arguments = NETWORKS[name]
    model = getattr(rep_distiller, kind)(*arguments, CLASSES)
    model = model.to(memory_format=layout)
    image = torch.randn(batch_size, 3, SIZE, SIZE).to(memory_format=layout)
    label = torch.arange(batch_size) % CLASSES
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def run():
      optimizer.zero_grad()
      functional.cross_entropy(model(image), label).backward()
      optimizer.step()

    return run

  return {name: make(name) for name in NETWORKS}


def work(engine, batch_size):
  """Answers the requests on the standard input, one on each line.

  A request is the name of a network, and the answer is the time of one training
  step in milliseconds.
  """
  if engine == 'jax':
    steps = jax_steps(batch_size)
  else:
    steps = torch_steps(batch_size, engine == 'torch_last')
  for line in sys.stdin:
    start = time.perf_counter()
    steps[line.strip()]()
    engines.answer(1000 * (time.perf_counter() - start))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--torch_python', default=sys.executable)
  parser.add_argument('--repeats', type=int, default=20)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--engine', help='the engine that this process runs')
  options = parser.parse_args()
  if options.engine:
    work(options.engine, options.batch)
    return
  from jaxdistill.training import fast_cpu

  # The programs here are not spread over several devices.
  fast = fast_cpu.fastest(os.environ, cores=1)
  kinds = {
    'jax': (sys.executable, 'jax', {}),
    'jax fast_cpu': (sys.executable, 'jax', fast),
    'torch': (options.torch_python, 'torch', {}),
    'torch last': (options.torch_python, 'torch_last', {}),
  }
  running = {
    name: engines.Engine(
      [python, __file__, f'--engine={engine}', f'--batch={options.batch}'],
      environment,
    )
    for name, (python, engine, environment) in kinds.items()
  }
  print(f'{"ms per step":20}', *(f'{name:>12}' for name in running), 'ratio')
  for network in NETWORKS:
    medians = engines.medians(running, options.repeats, network)
    # Compares the faster settings of both sides; above 1 JAX is faster.
    ratio = min(medians['torch'], medians['torch last']) / min(
      medians['jax'], medians['jax fast_cpu']
    )
    row = (f'{median:12.1f}' for median in medians.values())
    print(f'{network:20}', *row, f'{ratio:.2f}', flush=True)
  for engine in running.values():
    engine.close()


if __name__ == '__main__':
  main()
