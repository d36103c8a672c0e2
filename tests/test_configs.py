"""Every config of the repository is built, and a step of its rows traced."""

from collections.abc import Sequence
import functools
import pathlib
import runpy

import jax
import numpy as np
import pytest

from jaxdistill import experiment, main, recipes, tables
from jaxdistill.data import arrays
from jaxdistill.networks import pyramidnet
from jaxdistill.types import Model

# Tracing these takes minutes: shallow ones stand in for them.
DEEP = {
  'pyramidnet110_64': 64,
  'pyramidnet200_240': 240,
  'pyramidnet200_300': 300,
}
CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'


def _paths():
  """('file.py' or 'file.py:x' for each x of ARGUMENTS, whether to trace it).

  Those with another argument are built, and like the first one traced.
  """
  for path in sorted(CONFIGS.rglob('*.py')):
    arguments = runpy.run_path(str(path)).get('ARGUMENTS', ())
    for i, argument in enumerate(arguments or ['']):
      name = f'{path}:{argument}' if argument else str(path)
      yield pytest.param(name, not i, id=name.rpartition('configs/')[2])


def _random(size: int, num_classes: int, few: int | None):
  """Random images in place of data that is not there."""
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (1024, size, size, 3), np.uint8)
  label = np.arange(1024) % num_classes
  return arrays.from_arrays(
    image,
    label,
    image[:128],
    label[:128],
    num_classes=num_classes,
    few=few and 512,
  )


def _npz(path: str, *, validation: float = 0.1, few: int | None = None):
  del path, validation
  return _random(32, 10, few)


def _folder(path: str, *, image_size: int, validation: float = 0.1):
  del path, image_size, validation
  return _random(64, 200, None)


def _tfds(
  dataset: str,
  *,
  validation: float = 0.1,
  image_size: int | None = None,
  few: int | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
):
  del validation, mean, std
  classes = {'cifar10': 10, 'cifar100': 100, 'imagenet2012': 1000}
  # Of ImageNet a corner: what is traced does not depend on the size.
  return _random(64 if image_size else 32, classes[dataset], few)


@pytest.mark.parametrize(('path', 'trace'), tuple(_paths()))
def test_a_config_is_built_and_traced(path, trace, monkeypatch):
  monkeypatch.setitem(tables.DATASETS, 'npz', _npz)
  monkeypatch.setitem(tables.DATASETS, 'tfds', _tfds)
  monkeypatch.setitem(tables.DATASETS, 'folder', _folder)
  for name, widening in DEEP.items():
    shallow = functools.partial(pyramidnet.pyramidnet, 11, widening)
    monkeypatch.setitem(tables.MODELS, name, shallow)
  config = main.load_config(path).to_dict()
  plan = experiment.plan(config)
  # The plan has built every row; two are traced: the first, and of those with
  # the most phases the last.
  rows = [row for row in plan.rows if row.role == 'student']
  longest = max(reversed(rows), key=lambda row: len(row.method))
  some = {row.label: row for row in (rows[0], longest)}
  for row in some.values() if trace else ():
    _trace_steps(plan, row, of_all='/masked_layer/' in path)


def _trace_steps(plan, row, of_all):
  """The state has the same form after a step, and the loss is a number.

  So every other step is like it. A first phase that has no steps is followed by
  the next; `of_all` phases where none depends on the numbers before it.
  """
  carry = experiment.abstract_carry(plan, row.role)
  for make in row.method:
    phase = make(carry)
    state, frozen = _trace(plan, phase, carry)
    if phase.num_steps and not of_all:
      break
    carry = phase.finish(state, frozen, carry)


def _trace(plan, phase, carry):
  """A step of a phase; returns its state and what is frozen, in shapes."""
  rng = jax.random.key(0)

  def init(rng, variables):
    models = {k: Model(carry[k].network, v) for k, v in variables.items()}
    return phase.init(rng, models)

  def step(state, frozen, batches):
    return phase.step(state, frozen, batches, rng, phase.static(0))

  variables = {role: model.variables for role, model in carry.items()}
  state, frozen = jax.eval_shape(init, rng, variables)
  batches = {
    name: recipes.example(plan.dataset, stream.augment, stream.batch_size)
    for name, stream in phase.streams.items()
  }
  after, metrics = jax.eval_shape(step, state, frozen, batches)
  assert all(metric.shape == () for metric in metrics.values())
  assert jax.tree.structure(after) == jax.tree.structure(state)
  forms = (
    [(x.shape, x.dtype) for x in jax.tree.leaves(t)] for t in (after, state)
  )
  assert next(forms) == next(forms)
  return state, frozen
