"""Speed on an accelerator: training steps of several methods, and PyTorch.

It measures steps of KD, ResNet-56 -> ResNet-20 and WRN-40-2 -> WRN-16-2, with 1
and 10 steps in a call of the program, and with 1 and 8 seeds in one program; a
step of DistPro's search; and steps of Neighbourhood Distillation with ten
candidates for each block, stacked and unrolled. If PyTorch is installed, it
takes the same steps of KD, eager and with `torch.compile`. The data are random.

Each engine runs in a process of its own, one after the other, and the most
important ones come first. A Markdown table is printed and a JSON file is
written line by line, so that a run that is cut short keeps what it has
measured. After ten minutes, no further engine starts, and one that still runs
is ended.

  python benchmarks/gpu.py
  python benchmarks/gpu.py --only=wrn_16_2
  JAX_PLATFORMS=cpu python benchmarks/gpu.py --small
"""

import argparse
from concurrent import futures
import functools
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

import engines
import kd_step

EAGER = 'torch last'
COLUMNS = (
  'step',
  'engine',
  'batch',
  'type',
  'steps in a call',
  'seeds',
  'images/s',
  'times eager',
  'MiB',
)


# The sizes of everything, and tiny ones to try the program on a CPU. A turn
# takes about so many seconds, and no engine runs after `limit` seconds.
SIZES = {
  'pairs': (('resnet20', 'resnet56'), ('wrn_16_2', 'wrn_40_2')),
  'batches': (64, 512),
  'calls': ((1, 1), (10, 1), (10, 8), (1, 8)),  # steps in a call, seeds
  'search': ('wrn_16_2', 'wrn_40_2'),
  'blocks': 'resnet20',
  'candidates': 10,
  'turns': 5,
  'seconds': 0.3,
  'limit': 600,
}
SMALL = {
  **SIZES,
  'pairs': (('resnet8', 'resnet14'),),
  'batches': (2,),
  'calls': ((1, 1), (2, 2)),
  'search': ('wrn_10_1', 'wrn_16_1'),
  'candidates': 2,
  'turns': 2,
  'seconds': 0.0,
  'limit': 170,
}


def jobs(sizes, has_torch):
  """Returns what the processes measure, the most important first."""
  cases = [
    {'student': student, 'teacher': teacher, 'batch': batch, 'dtype': dtype}
    for batch, dtype, (student, teacher) in itertools.product(
      sizes['batches'], ('float32', 'bfloat16'), sizes['pairs']
    )
  ]
  first, compiled = ['jax'], []
  if has_torch:
    # Eager PyTorch comes first, because the ratios are to it.
    first, compiled = [EAGER, 'jax'], ['torch last compile']
  networks = {
    'search': sizes['search'],
    'unroll': (sizes['blocks'], sizes['blocks']),
    'stack': (sizes['blocks'], sizes['blocks']),
  }
  others = [
    {
      'engine': engine,
      'student': student,
      'teacher': teacher,
      'batch': sizes['batches'][0],
      'dtype': 'float32',
    }
    for engine, (student, teacher) in networks.items()
  ]

  def kd(engine_names, chosen):
    return [
      {'engine': engine, **case} for case in chosen for engine in engine_names
    ]

  return [
    *kd(first, cases[:1]),
    *others,
    *kd(first, cases[1:]),
    *kd(compiled, cases),
  ]


def timed(steps, images, sizes):
  """Returns the median and the quartiles of images per second of some turns.

  Args:
    steps: a function that makes a number of calls and waits for them.
    images: the images that a call processes.
    sizes: says how many turns there are, and how long each takes.
  """
  steps(1)
  start = time.perf_counter()
  steps(1)
  count = max(1, round(sizes['seconds'] / (time.perf_counter() - start)))
  rates = []
  for _ in range(sizes['turns']):
    start = time.perf_counter()
    steps(count)
    rates.append(count * images / (time.perf_counter() - start))
  low, middle, high = statistics.quantiles(rates, n=4, method='inclusive')
  return {'rate': middle, 'low': low, 'high': high}


def torch_results(job, sizes):
  """Yields what is measured of PyTorch."""
  import torch

  steps = kd_step.torch_steps(job)['step']
  result = timed(steps, job.batch, sizes)
  if torch.cuda.is_available():
    result['memory'] = torch.cuda.max_memory_allocated()
  yield result


def jax_results(job, sizes):
  """Yields what is measured of steps of KD."""
  import jax
  import jax.numpy as jnp

  _, recipe, phase, state, frozen = kd_step.jax_phase(job)
  generator = jax.random.key(0)
  shape = recipe.example['image'].shape
  batch = {
    'image': jax.random.normal(generator, shape),
    'label': jnp.arange(job.batch) % kd_step.CLASSES,
    'index': jnp.arange(job.batch),
  }

  def copies(tree, seeds):
    """Returns a tree with one entry for each seed."""
    return jax.tree.map(lambda x: jnp.stack([x] * seeds), tree)

  def step(state, frozen, batch, rng):
    return phase.step(state, frozen, {'train': batch}, rng, None)

  def call(state, frozen, batch, rng, *, steps, seeds):
    one = step if seeds == 1 else jax.vmap(step, (0, None, 0, 0))

    def body(state, index):
      keys = jax.random.fold_in(rng, index)
      keys = keys if seeds == 1 else jax.random.split(keys, seeds)
      state, metrics = one(state, frozen, batch, keys)
      return state, metrics['loss']

    if steps == 1:
      return body(state, 0)
    return jax.lax.scan(body, state, jnp.arange(steps))

  programs = {}
  for steps, seeds in sizes['calls']:
    program = jax.jit(
      functools.partial(call, steps=steps, seeds=seeds), donate_argnums=0
    )
    trees = (state, batch) if seeds == 1 else copies((state, batch), seeds)
    arguments = (trees[0], frozen, trees[1], jax.random.key(1))
    programs[steps, seeds] = program.lower(*arguments), arguments
  with futures.ThreadPoolExecutor() as pool:
    compiled = {
      key: pool.submit(lowered.compile)
      for key, (lowered, _) in programs.items()
    }
  for (steps, seeds), (_, arguments) in programs.items():
    program = compiled[steps, seeds].result()
    images = steps * seeds * job.batch
    result = timed(repeated(program, *arguments), images, sizes)
    analysis = program.memory_analysis()
    result['memory'] = (
      analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    )
    yield {'steps': steps, 'seeds': seeds, **result}


def repeated(program, state, *arguments):
  """Returns a function of a number of calls; the state is donated."""
  import jax
  import jax.numpy as jnp

  states = [jax.tree.map(jnp.copy, state)]

  def calls(number):
    for _ in range(number):
      states[0], metrics = program(states[0], *arguments)
    jax.block_until_ready(metrics)

  return calls


def search_results(job, sizes):
  """Yields what is measured of a step of DistPro's search."""
  import distpro
  import jax

  from jaxdistill.methods.distpro import method

  carry, recipe = distpro.problem(job)
  (phase_of,) = method.distpro_search(recipe, space=distpro.SPACES['27'])
  phase = phase_of(carry)
  state, frozen = phase.init(jax.random.key(0), carry)
  batches = distpro.random_batches(phase, recipe)
  program = jax.jit(
    functools.partial(phase.step, static=None), donate_argnums=0
  )
  steps = repeated(program, state, frozen, batches, jax.random.key(1))
  yield timed(steps, job.batch, sizes)


def candidates_results(job, sizes):
  """Yields what is measured of a step with candidates for each block."""
  import neighbourhood

  step = neighbourhood.candidates_step(
    job.batch, sizes['candidates'], job.engine
  )

  def steps(number):
    for _ in range(number):
      step()

  yield timed(steps, job.batch, sizes)


RESULTS = {
  'jax': jax_results,
  'torch': torch_results,
  'search': search_results,
  'unroll': candidates_results,
  'stack': candidates_results,
}


def work(job, sizes):
  """Prints a line of JSON for each result of one process."""
  options = argparse.Namespace(alone=False, files=None, **job)
  kind = job['engine'].partition(' ')[0]
  for result in RESULTS[kind](options, sizes):
    row = {**job, 'steps': 1, 'seeds': 1, **result}
    print(json.dumps(row), flush=True)


def rows(job, options, remaining):
  """Yields the results of a process, which is ended after some seconds."""
  is_torch = job['engine'].startswith('torch')
  command = [
    options.torch_python if is_torch else sys.executable,
    __file__,
    f'--job={json.dumps(job)}',
  ]
  environment = dict(os.environ)
  if options.small:
    # Otherwise compiling would take most of the time.
    command.append('--small')
    flags = environment.get('XLA_FLAGS', '')
    environment['XLA_FLAGS'] = f'{flags} --xla_backend_optimization_level=0'
  process = subprocess.Popen(
    command, env=environment, stdout=subprocess.PIPE, text=True
  )
  timer = threading.Timer(remaining, process.kill)
  timer.start()
  for line in process.stdout:
    if line.startswith('{'):
      yield json.loads(line)
  timer.cancel()
  if process.wait():
    print(f'{described(job)} ended early: exit code {process.returncode}')


def described(job):
  """Returns which step a process takes, and how."""
  names = {
    'search': 'DistPro, search',
    'unroll': 'ND, candidates unrolled',
    'stack': 'ND, candidates stacked',
  }
  pair = f'{job["teacher"]} -> {job["student"]}'
  return f'{names.get(job["engine"], "KD")}, {pair}'


def cells(row, eager):
  """Returns a row of the table.

  Args:
    row: the result.
    eager: the images per second of eager PyTorch, if they are known.
  """
  is_torch = row['engine'].startswith('torch')
  memory = row.get('memory')
  return (
    described(row),
    row['engine'] if is_torch else 'jaxdistill',
    row['batch'],
    row['dtype'],
    row['steps'],
    row['seeds'],
    f'{row["rate"]:.1f} [{row["low"]:.1f}, {row["high"]:.1f}]',
    f'{row["rate"] / eager:.2f}' if eager else '',
    f'{memory / 2**20:.0f}' if memory else '',
  )


def printed(values):
  """Prints a row of a Markdown table."""
  print('|', ' | '.join(map(str, values)), '|', flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--small', action='store_true', help='tiny sizes, to try the program'
  )
  parser.add_argument(
    '--limit', type=float, help='after how many seconds the last engine ends'
  )
  parser.add_argument(
    '--only', default='', help='measure rows with this text in the first column'
  )
  parser.add_argument('--output', default='gpu.json', help='the JSON file')
  parser.add_argument('--torch_python', default=sys.executable)
  parser.add_argument('--job', help='what this process measures')
  options = parser.parse_args()
  sizes = SMALL if options.small else SIZES
  if options.job:
    work(json.loads(options.job), sizes)
    return
  limit = options.limit or sizes['limit']
  start = time.perf_counter()
  results, eager, left = [], {}, []
  print(device(), flush=True)
  printed(COLUMNS)
  printed(['---'] * len(COLUMNS))
  for job in jobs(sizes, engines.has_torch(options.torch_python)):
    remaining = limit - (time.perf_counter() - start)
    if options.only not in described(job):
      continue
    if remaining < 0:
      left.append(f'{described(job)}, {job["engine"]}, batch {job["batch"]}')
      continue
    case = described(job), job['batch'], job['dtype']
    for row in rows(job, options, remaining):
      if job['engine'] == EAGER:
        eager[case] = row['rate']
      printed(cells(row, eager.get(case)))
      results.append(row)
      pathlib.Path(options.output).write_text(json.dumps(results, indent=1))
  if left:
    print(f'not measured within {limit:.0f} s:', '; '.join(left))


def device():
  """Returns the accelerator and JAX's version, as a child process sees it."""
  code = (
    'import jax; d = jax.devices()[0]; '
    'print(f"{d.platform}: {d.device_kind}, jax {jax.__version__}")'
  )
  child = [sys.executable, '-c', code]
  return subprocess.run(
    child, stdout=subprocess.PIPE, text=True, check=True
  ).stdout.strip()


if __name__ == '__main__':
  main()
