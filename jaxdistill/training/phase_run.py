"""One phase while it runs: its state, steps, records and checkpoints."""

import collections
import contextlib
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from jaxdistill.core import checks, random
from jaxdistill.core.types import (
  Array,
  Batch,
  Dataset,
  Model,
  Phase,
  PyTree,
  Static,
)
from jaxdistill.training import checkpoint, programs
from jaxdistill.training import sources as sources_lib
from jaxdistill.training.distributed import hosts, sharding
from jaxdistill.training.options import (
  FitOptions,
  Fitted,
  Interrupted,
  NonFiniteLossError,
  PhaseCost,
)

# The host may not run further ahead of the devices than so many calls: a stop
# request would otherwise wait for all steps that it has queued.
CALLS_IN_FLIGHT = 2


class _Best(NamedTuple):
  """When a role was best so far; the model itself is on the devices.

  Attributes:
    quality: its score, with the other sign if lower scores are better.
    step: the step at the end of that epoch.
  """

  quality: float
  step: int


class PhaseRun:
  """Runs one phase from its beginning, or from its newest checkpoint."""

  def __init__(
    self,
    phase: Phase,
    order: int,
    before: Fitted,
    dataset: Dataset,
    seed: int,
    options: FitOptions,
    checkpoints: pathlib.Path | None,
  ):
    """Prepares the phase.

    Args:
      phase: the phase.
      order: its position in the method, from 0.
      before: the result of the phases before it.
      dataset: what its 'data' streams draw from.
      seed: the seed of the run.
      options: how the run is watched, stored and spread over devices.
      checkpoints: the folder of the phase's checkpoints; None: none are kept.
    """
    self._begun = time.monotonic()
    self._phase = phase
    self._before = before
    self._options = options
    init_rng, step_rng = random.phase_keys(seed, order)
    mesh = sharding.make_mesh(options.model_parallel, options.devices)
    self._devices = mesh.size
    for stream in phase.streams.values():
      sharding.check_batch_size(stream.batch_size, mesh)
    self._sources = sources_lib.of_phase(
      phase, before.carry, dataset, (seed, order), mesh, options.workers
    )
    self._steps_per_epoch = sources_lib.steps_per_epoch(phase, self._sources)
    self._stop_every = phase.stop_every or self._steps_per_epoch
    self._steps_per_call = options.steps_per_call or _default_steps_per_call()
    if sources_lib.one_at_a_time(self._sources):
      self._steps_per_call = 1
    self._rng = sharding.place_key(step_rng, mesh)
    self._start(init_rng, mesh)
    self._best = {name: _Best(-np.inf, 0) for name in self._tree['best']}
    self._step, self._seconds, self._compile_seconds = 0, 0.0, 0.0
    self._compiled: set[tuple[Static, int]] = set()
    self._in_flight: collections.deque[Array] = collections.deque()
    self._store = (
      None if checkpoints is None else checkpoint.Checkpoints(checkpoints)
    )
    self._restore()
    self._saved_step = self._step
    options.log.begin(
      order,
      phase.name,
      self._step,
      phase.num_steps,
      before.steps,
      options.score.name,
    )

  def _start(self, init_rng: Array, mesh: Mesh) -> None:
    """Sets the arrays with which the phase begins, and the step's program."""
    state, self._frozen_local = self._phase.init(init_rng, self._before.carry)
    # The program donates the buffers of the state, which the carry still needs.
    state = sharding.place(jax.tree.map(jnp.copy, state), mesh)
    self._frozen = sharding.place(self._frozen_local, mesh)
    layout = sharding.layout(state, mesh)
    self._program = programs.compiled(self._phase, layout, mesh)
    first_batches = self._draw(0, 1)
    totals = programs.zero_totals(
      self._phase, state, self._frozen, first_batches, self._rng
    )
    best_variables = {
      name: jax.tree.map(jnp.copy, eval_model(state, self._frozen).variables)
      for name, eval_model in self._phase.eval_models.items()
      if self._options.evaluate is not None and name in self._before.carry
    }
    # What a checkpoint holds.
    self._tree: dict[str, PyTree] = {
      'state': state,
      'totals': sharding.place(totals, mesh),
      'best': best_variables,
    }

  def _restore(self) -> None:
    """Continues from the newest checkpoint, if there is one."""
    if self._store is None:
      return
    self._step, self._tree, meta, problems = self._store.load(self._tree)
    for problem in problems:
      self._options.log.say(f'skipped a damaged {problem}')
    if meta:
      self._seconds = meta['seconds']
      self._compile_seconds = meta.get('compile_seconds', 0.0)
      self._best = {k: _Best(*v) for k, v in meta['best'].items()}

  def run(self) -> Fitted:
    """Takes the remaining steps and returns the result so far.

    Raises:
      NonFiniteLossError: the loss or the state became NaN or infinite.
      Interrupted: the run was asked to stop.
    """
    stores = [self._store] if self._store else []
    with contextlib.ExitStack() as stack:
      for resource in (self._options.log, *self._sources.values(), *stores):
        stack.enter_context(contextlib.closing(resource))
      self._train()
      self._check_finite()
      self._options.log.end()
    return self._result()

  def _train(self) -> None:
    """Takes steps until the phase ends."""
    phase, options = self._phase, self._options
    self._saved_time = time.monotonic()
    first_step = self._step
    batch_images = sum(stream.batch_size for stream in phase.streams.values())
    while self._step < phase.num_steps:
      self._save_or_stop()
      self._call()
      is_last = self._step == phase.num_steps
      if not is_last and self._step % self._stop_every == 0:
        is_last = phase.stop(self._tree['state'])
      epoch_ended = is_last or self._step % self._steps_per_epoch == 0
      if is_last or self._step % options.log_every == 0:
        self._record()
      options.log.advance(self._step, (self._step - first_step) * batch_images)
      epoch = self._step // self._steps_per_epoch
      if epoch_ended and (is_last or epoch % options.evaluate_every == 0):
        self._evaluate()
      if is_last:
        break

  def _call(self) -> None:
    """Takes one step, or several in one call of the device."""
    count = programs.together(
      self._phase,
      self._step,
      (self._steps_per_epoch, self._options.log_every, self._stop_every),
      self._steps_per_call,
    )
    key = self._phase.static(self._step), count
    program = self._program(*key)
    batches = self._draw(self._step, count)
    # Drawing may hang in one process only; the program waits for all of them.
    hosts.point()
    begun = time.monotonic()
    self._tree['state'], self._tree['totals'] = program(
      self._tree['state'],
      self._tree['totals'],
      self._frozen,
      batches,
      self._rng,
      np.int32(self._step),
    )
    if key not in self._compiled:
      self._compile_seconds += time.monotonic() - begun
      self._compiled.add(key)
    self._step += count
    # The next call donates the totals, so it is a copy that is waited for.
    self._in_flight.append(jnp.copy(self._tree['totals']['count']))
    if len(self._in_flight) > CALLS_IN_FLIGHT:
      jax.block_until_ready(self._in_flight.popleft())

  def _draw(self, step: int, count: int) -> dict[str, Batch]:
    return sources_lib.draw(self._sources, step, count)

  def _save_or_stop(self) -> None:
    """Saves a checkpoint if it is time, and stops if someone asked for it."""
    # Agreeing costs several processes a wait, so they do it at records, where
    # they wait for the devices anyway.
    interval = 1 if hosts.alone() else self._options.log_every
    if self._step % interval:
      return
    passed = time.monotonic() - self._saved_time
    stopped, due = hosts.any_of(
      self._options.interrupted(), passed >= self._options.checkpoint_seconds
    )
    if stopped or due:
      self._save()
      self._saved_time = time.monotonic()
    if stopped:
      raise Interrupted(
        f'stopped at step {self._step} of phase {self._phase.name!r}'
      )

  def _save(self) -> None:
    """Saves a checkpoint, unless this step is saved already."""
    self._check_finite()
    if self._store is not None and self._saved_step != self._step:
      meta = {
        'seconds': self._seconds + time.monotonic() - self._begun,
        'compile_seconds': self._compile_seconds,
        'best': {name: list(best) for name, best in self._best.items()},
      }
      self._store.save(self._step, self._tree, meta)
      self._saved_step = self._step

  def _check_finite(self) -> None:
    """Raises NonFiniteLossError if training has gone wrong."""
    bad_step = int(self._tree['totals']['bad'])
    if bad_step >= 0:
      what, step = 'loss', bad_step + 1
    elif programs.has_nan(self._tree['state']):
      what, step = 'state', self._step
    else:
      return
    saved = self._saved_step if self._store is not None else 0
    raise NonFiniteLossError(
      f'the {what} is not finite at step {step} of phase '
      f'{self._phase.name!r}; last good checkpoint of this phase: '
      f'{saved or "none"}'
    )

  def _record(self) -> None:
    """Writes the means of the metrics since the last record."""
    self._check_finite()
    totals = self._tree['totals']
    self._options.log.write(self._step, 'train', programs.means(totals))
    self._tree['totals'] = programs.cleared(totals)

  def _evaluate(self) -> None:
    """Evaluates the phase's models, and keeps each role's best one."""
    options = self._options
    if not options.evaluate:
      return
    for name, eval_model in self._phase.eval_models.items():
      model = eval_model(self._tree['state'], self._frozen)
      metrics = options.evaluate(model)
      is_only_one = list(self._best) == [name]
      split = 'validation' if is_only_one else f'validation/{name}'
      options.log.write(self._step, split, {**metrics})
      best = self._best.get(name)
      if best is None:
        continue
      checks.choice('score', options.score.name, metrics)
      quality = options.score.quality(metrics[options.score.name])
      if quality > best.quality:
        self._best[name] = _Best(quality, self._step)
        copied = jax.tree.map(jnp.copy, model.variables)
        self._tree['best'][name] = copied

  def _result(self) -> Fitted:
    """Finishes the phase and adds it to the result of those before."""
    # What is handed on is on one device, as if there were no others.
    state, best_variables = jax.tree.map(
      jnp.asarray, sharding.fetch((self._tree['state'], self._tree['best']))
    )
    phase, before, frozen = self._phase, self._before, self._frozen_local
    carry = phase.finish(state, frozen, before.carry)
    report = phase.report(state, carry)
    best: dict[str, Model] = {}
    for name, eval_model in phase.eval_models.items():
      if name in self._best:
        network = eval_model(state, frozen).network
        best[name] = Model(network, best_variables[name])
    best_step = {name: entry.step for name, entry in self._best.items()}
    seconds = self._seconds + time.monotonic() - self._begun
    compile_seconds = self._compile_seconds
    cost = PhaseCost(
      phase.name,
      self._step,
      seconds,
      compile_seconds,
      (seconds - compile_seconds) * self._devices,
    )
    return Fitted(
      carry=carry,
      best={**before.best, **best},
      best_step={**before.best_step, **best_step},
      steps=before.steps + self._step,
      seconds=before.seconds + seconds,
      reports={**before.reports, **report},
      costs=(*before.costs, cost) if self._step else before.costs,
    )


def _default_steps_per_call() -> int:
  return 1 if jax.default_backend() == 'cpu' else 10
