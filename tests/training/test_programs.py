"""Methods share the programs of steps that differ only in numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.types import Phase, Stream
from jaxdistill.data.transforms import augment
from jaxdistill.training import lanes, log, loop


def growing(
  factor=1.5, num_steps=2, size=1, turns=2, needs_values=False, phases=1
):
  """A method that multiplies `w`; its choices make programs differ."""

  def build(carry):
    offset = float(carry['start'].sum()) if needs_values else 0.5

    def init(rng, carry):
      return {'w': carry['start'] + jax.random.normal(rng, (size,))}, {}

    def step(state, frozen, batches, rng, static):
      del frozen, batches, rng, static
      w = jax.lax.fori_loop(0, turns, lambda i, w: 1.1 * w, state['w'])
      return {'w': factor * w + offset}, {'loss': w.sum()}

    def finish(state, frozen, carry):
      del frozen
      return {**carry, 'start': state['w']}

    streams = {'train': Stream(8, augment.standardize((100.0,), (50.0,)))}
    return Phase('growth', num_steps, streams, init, step, finish)

  return (build, *(growing(0.9)[0] for _ in range(phases - 1)))


METHODS = {
  'first': growing(),
  'factor': growing(-0.7),
  'length': growing(1.1, num_steps=5),
  'size': growing(1.2, size=3),
  'turns': growing(1.3, turns=4),
  'values': growing(1.4, needs_values=True),
  'phases': growing(1.6, phases=2),
}
# Those whose first phases may share a program.
ALIKE = {'first', 'factor', 'length', 'phases'}
OPTIONS = loop.FitOptions(log=log.Log(show=False))
CARRY = {'start': jnp.full(1, 0.3)}


@pytest.fixture(scope='module')
def alone(dataset):
  """Name -> what a method gives that shares nothing."""
  return {
    name: loop.fit(method, CARRY, dataset, seed=3, options=OPTIONS)
    for name, method in METHODS.items()
  }


@pytest.mark.parametrize('names', [[*METHODS], [*METHODS][::-1]])
def test_no_method_uses_the_program_of_another(
  names, alone, dataset, monkeypatch
):
  """Whatever differs, and whichever of them is trained first."""
  steps, jit = {}, lanes._compiled
  monkeypatch.setattr(
    *(lanes, '_compiled'),
    lambda step, *rest: steps.setdefault(name, step) and jit(step, *rest),
  )
  programs = loop.Programs(METHODS.values())
  for name in names:
    run = loop.Run(METHODS[name], CARRY, 3, OPTIONS)
    outcome = loop.fit_runs({name: run}, dataset, OPTIONS, programs)[name]
    np.testing.assert_allclose(
      outcome.carry['start'], alone[name].carry['start'], rtol=1e-6
    )
    assert outcome.steps == alone[name].steps
  assert len({steps[name] for name in ALIKE}) == 1
  assert len({*steps.values()}) == 1 + len(METHODS) - len(ALIKE)
