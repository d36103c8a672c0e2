"""A phase whose parts train apart, and what each phase costs."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import phases
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Phase, Stream
from jaxdistill.data.transforms import augment
from jaxdistill.phases import parts as parts_lib
from jaxdistill.training import log as log_lib
from jaxdistill.training import loop, part_files, phase_run
from jaxdistill.training.distributed import sharding

PARTS = ('a', 'b', 'c')
STEPS = 5


def parts(carry):
  return {
    name: {'student': (f'{name}1', f'{name}2')}
    for name in PARTS
    if f'{name}1' in carry['student'].variables['params']
  }


def phase(carry, part):
  """Adds noise and the mean of a batch to the weights of some stages."""
  names = [f'{p}{i}' for p in PARTS if part in (None, p) for i in (1, 2)]

  def init(rng, carry):
    del rng
    return dict(carry['student'].variables['params']), {}

  def step(state, frozen, batches, rng, static):
    del frozen, static
    shift = batches['train']['image'].mean() + jax.random.uniform(rng)
    new = {k: v * shift + 1 for k, v in state.items() if k in names}
    return {**state, **new}, {'loss': shift}

  def finish(state, frozen, carry):
    del frozen
    return {**carry, 'student': Model(Network(()), {'params': state})}

  streams = {'train': Stream(8, augment.none())}
  return Phase('parted', STEPS, streams, init, step, finish)


def counted(carry):
  """A phase after it, which sees what the parts have become."""
  total = sum(carry['student'].variables['params'].values())
  make = lambda rng, carry: {  # noqa: E731
    'sum': Model(Network(()), {'params': {'total': total}})
  }
  return phases.setup_phase('sum', make)


METHOD = (phases.InParts(parts, phase), counted)
CARRY = {
  'student': Model(
    Network(()),
    {'params': {f'{p}{i}': jnp.float32(i) for p in 'abc' for i in (1, 2)}},
  )
}


def fit(method, dataset, directory, **options):
  return loop.fit(
    method,
    CARRY,
    dataset,
    seed=3,
    options=loop.FitOptions(directory=str(directory), **options),
  )


def train_apart(numbers, dataset, directory):
  for number in numbers:
    method = parts_lib.part_of(METHOD, 0, PARTS[number])
    fit(method, dataset, part_files.folder(directory, number))


@pytest.fixture(scope='module')
def together(dataset, tmp_path_factory):
  return fit(METHOD, dataset, tmp_path_factory.mktemp('together'))


def test_parts_trained_apart_and_joined_equal_those_trained_together(
  together, dataset, tmp_path
):
  train_apart((2, 0, 1), dataset, tmp_path)  # in any order
  joined = fit(METHOD, dataset, tmp_path)
  jax.tree.map(
    np.testing.assert_array_equal,
    {k: m.variables for k, m in joined.carry.items()},
    {k: m.variables for k, m in together.carry.items()},
  )
  assert joined.steps == together.steps == STEPS
  assert [cost.phase for cost in joined.costs] == ['parted']
  # It is in a file, so that a resumed run reads it.
  again = fit(METHOD, dataset, tmp_path)
  assert again.costs == joined.costs


def test_a_part_that_is_trained_apart_leaves_the_others_alone(
  dataset, tmp_path
):
  method = parts_lib.part_of(METHOD, 0, 'b')
  params = fit(method, dataset, tmp_path).carry['student'].variables['params']
  start = CARRY['student'].variables['params']
  changed = {name for name in params if params[name] != start[name]}
  assert changed == {'b1', 'b2'}


def test_parts_of_which_some_are_missing_are_not_joined(dataset, tmp_path):
  train_apart((1,), dataset, tmp_path)
  message = r'all pieces or none, got no piece 0 \(a\), 2 \(c\); train them'
  with pytest.raises(UsageError, match=message):
    fit(METHOD, dataset, tmp_path)


def test_the_cost_of_parts_is_the_sum_over_them(dataset, tmp_path):
  train_apart((0, 1, 2), dataset, tmp_path)
  costs = []
  for number in range(3):
    method = parts_lib.part_of(METHOD, 0, PARTS[number])
    folder = part_files.folder(tmp_path, number)
    (cost,) = fit(method, dataset, folder).costs  # reads its file
    costs.append(cost)
  (joined,) = fit(METHOD, dataset, tmp_path).costs
  for field in ('seconds', 'compile_seconds', 'device_seconds'):
    total = sum(getattr(cost, field) for cost in costs)
    assert getattr(joined, field) == pytest.approx(total)


def test_a_cost_counts_devices_and_leaves_compiling_out(
  dataset, tmp_path, monkeypatch
):
  """Every look at the clock takes one second; a stopped run adds up."""
  ticks = iter(range(10**6))
  clock = types.SimpleNamespace(monotonic=lambda: float(next(ticks)))
  monkeypatch.setattr(phase_run, 'time', clock)
  monkeypatch.setattr(
    sharding, 'make_mesh', functools.partial(_mesh_of_four, sharding.make_mesh)
  )
  method = (lambda carry: phase(carry, None),)
  calls = iter([False, False, True])
  log = log_lib.Log(show=False)
  with pytest.raises(loop.Interrupted):
    fit(method, dataset, tmp_path, interrupted=lambda: next(calls), log=log)
  first_start = next(ticks)
  (cost,) = fit(method, dataset, tmp_path).costs
  assert cost.steps == STEPS
  assert first_start < cost.seconds < next(ticks)
  # Each start compiles one program, in one tick.
  assert cost.compile_seconds == 2
  assert cost.device_seconds == 4 * (cost.seconds - 2)


class _Mesh:
  """A mesh of one device that says that it has four."""

  size = 4

  def __init__(self, mesh):
    self._mesh = mesh

  def __getattr__(self, name):
    return getattr(self._mesh, name)


def _mesh_of_four(make, *arguments):
  return _Mesh(make(*arguments))
