"""One phase while it runs: its state, steps, records and checkpoints."""

import collections
from collections.abc import Sequence
import contextlib
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxdistill.core import random
from jaxdistill.core.types import Array, Dataset, PyTree, Static
from jaxdistill.training import checkpoint, programs
from jaxdistill.training import lanes as lanes_lib
from jaxdistill.training import sources as sources_lib
from jaxdistill.training.distributed import hosts, sharding
from jaxdistill.training.options import (
  FitOptions,
  Fitted,
  Interrupted,
  NonFiniteLossError,
  PhaseCost,
)
from jaxdistill.training.seed_run import SeedRun

# The host may not run further ahead of the devices than so many calls: a stop
# request would otherwise wait for all steps that it has queued.
CALLS_IN_FLIGHT = 2


class PhaseRun:
  """Runs one phase from its beginning, or from its newest checkpoint."""

  def __init__(
    self,
    order: int,
    seeds: Sequence[SeedRun],
    dataset: Dataset,
    options: FitOptions,
    checkpoints: pathlib.Path | None,
    shared: programs.Programs | None = None,
  ):
    """Prepares the phase.

    Args:
      order: its position in the method, from 0.
      seeds: the runs that train in one program.
      dataset: what its 'data' streams draw from.
      options: how the run is watched, stored and spread over devices.
      checkpoints: the folder of the phase's checkpoints; None: none are kept.
      shared: the programs of runs that have run before; None: there are none.
    """
    self._begun = time.monotonic()
    self._order = order
    self._seeds = seeds
    self._lanes = lanes_lib.of(len(seeds))
    self._phase = phase = seeds[0].phase
    sizes = [stream.batch_size for stream in phase.streams.values()]
    mesh = sharding.mesh_of_batches(
      sizes, options.model_parallel, options.devices, on_one=len(seeds) > 1
    )
    self._options, self._devices = options, mesh.size
    self._sources = sources_lib.of_seeds(
      [(run.phase, run.before.carry, (run.seed, order)) for run in seeds],
      *(dataset, mesh, options.workers),
    )
    self._steps_per_epoch = sources_lib.steps_per_epoch(phase, self._sources[0])
    self._stop_every = phase.stop_every or self._steps_per_epoch
    self._steps_per_call = options.steps_per_call or programs.steps_per_call()
    if sources_lib.one_at_a_time(self._sources[0]):
      self._steps_per_call = 1
    self._start(mesh, shared)
    self._step, self._seconds, self._compile_seconds = 0, 0.0, 0.0
    self._compiled: set[tuple[Static, int]] = set()
    self._in_flight: collections.deque[Array] = collections.deque()
    self._store = (
      None if checkpoints is None else checkpoint.Checkpoints(checkpoints)
    )
    self._restore()
    self._saved_step = self._step
    # If there are several seeds, the log in the options shows their progress.
    offsets = {options.log: seeds[0].before.steps}
    self._logs = offsets | {run.log: run.before.steps for run in seeds}
    for log, offset in self._logs.items():
      log.begin(
        order,
        phase.name,
        self._step,
        phase.num_steps,
        offset,
        options.score.name,
      )

  def _start(self, mesh: Mesh, shared: programs.Programs | None) -> None:
    """Sets the arrays with which the phase begins, and the step's program."""
    lanes, states, keys = self._lanes, [], []
    for run in self._seeds:
      init_rng, step_rng = random.phase_keys(run.seed, self._order)
      state, run.frozen = run.phase.init(init_rng, run.before.carry)
      # The program donates these buffers, but the carry still needs them.
      states.append(sharding.copied(state))
      keys.append(step_rng)
    held = [run.frozen for run in self._seeds]
    lanes_lib.check_shapes(self._phase.name, [*zip(states, held)])
    frozen, self._frozen_axes = lanes.frozen(held)
    self._state = sharding.place(lanes.packed(states), mesh)
    self._frozen = sharding.place(frozen, mesh)
    self._rng = lanes.packed([sharding.place_key(key, mesh) for key in keys])
    prepared = self._prepared(mesh, shared)
    self._program = programs.compiled(
      prepared,
      sharding.layout(self._state, mesh),
      *(mesh, lanes, self._frozen_axes),
    )
    # Other runs begin with these totals, too.
    totals = [program.totals for program in prepared]
    self._zeros = sharding.place(lanes.packed(totals), mesh)
    self._clear_totals()
    if self._options.evaluate is not None:
      for lane, run in enumerate(self._seeds):
        run.start_best(*self._of(lane))

  def _clear_totals(self) -> None:
    """Begins new totals; the program donates them."""
    self._totals = sharding.copied(self._zeros)

  def _prepared(
    self, mesh: Mesh, shared: programs.Programs | None
  ) -> list[programs.Program]:
    """Returns the program of each seed."""
    runs = self._seeds
    batches = sources_lib.draw(self._sources[0], 0, 1)
    inputs = *self._of(0), batches, self._lanes.one(self._rng, 0)
    inputs = jax.tree.map(programs.placed_shape, inputs)
    prepared = shared and shared.of_runs(
      [run.build for run in runs],
      [run.before.carry for run in runs],
      *(inputs, mesh),
    )
    if not prepared:
      traced = [programs.trace(run.phase, inputs, mesh) for run in runs]
      prepared = programs.shared(traced, inputs)
    totals = [program.totals for program in prepared]
    lanes_lib.check_metrics(self._phase.name, totals)
    return prepared

  def _of(self, lane: int) -> tuple[PyTree, PyTree]:
    """Returns the state of a seed, and what is frozen."""
    frozen = self._lanes.one_frozen(self._frozen, self._frozen_axes, lane)
    return self._lanes.one(self._state, lane), frozen

  @property
  def _tree(self) -> dict[str, PyTree]:
    """What a checkpoint holds."""
    best = self._lanes.listed([run.best_variables for run in self._seeds])
    return {'state': self._state, 'totals': self._totals, 'best': best}

  def _restore(self) -> None:
    """Continues from the newest checkpoint, if there is one."""
    if self._store is None:
      return
    self._step, tree, meta, problems = self._store.load(self._tree)
    for problem in problems:
      self._options.log.say(f'skipped a damaged {problem}')
    if meta:
      self._state, self._totals = tree['state'], tree['totals']
      self._seconds = meta['seconds']
      self._compile_seconds = meta.get('compile_seconds', 0.0)
      for lane, run in enumerate(self._seeds):
        run.restore(
          self._lanes.unlisted(meta.get('runs', meta), lane),
          self._lanes.unlisted(tree['best'], lane),
        )

  def run(self) -> list[Fitted | NonFiniteLossError]:
    """Takes the remaining steps and returns the result of each seed so far.

    Raises:
      Interrupted: the run was asked to stop.
    """
    stores = [self._store] if self._store else []
    sources = [x for of_seed in self._sources for x in of_seed.values()]
    with contextlib.ExitStack() as stack:
      for resource in (*self._logs, *sources, *stores):
        stack.enter_context(contextlib.closing(resource))
      try:
        self._train()
        self._check_finite()
      except NonFiniteLossError:
        pass  # every seed has failed; the failures are the results
      else:
        for log in self._logs:
          log.end()
    return [
      run.failure or self._result(lane) for lane, run in enumerate(self._seeds)
    ]

  def _active(self) -> list[SeedRun]:
    """Returns the seeds that still take steps."""
    return [run for run in self._seeds if run.is_active]

  def _train(self) -> None:
    """Takes steps until the phase ends for every seed."""
    phase, options = self._phase, self._options
    self._saved_time = time.monotonic()
    first_step = self._step
    batch_images = sum(stream.batch_size for stream in phase.streams.values())
    batch_images *= len(self._seeds)
    while self._step < phase.num_steps and self._active():
      self._save_or_stop()
      if not self._active():
        break  # the check of what is saved has failed the last one
      self._call()
      ending = self._ending()
      is_record = self._step % options.log_every == 0
      if is_record or ending:
        self._record(self._active() if is_record else ending)
      if is_record:
        self._clear_totals()
      images = (self._step - first_step) * batch_images
      for log in self._logs:
        log.advance(self._step, images)
      epoch, rest = divmod(self._step, self._steps_per_epoch)
      is_evaluation = rest == 0 and epoch % options.evaluate_every == 0
      self._evaluate(self._active() if is_evaluation else ending)
      for run in ending:
        run.ended = self._step

  def _ending(self) -> list[SeedRun]:
    """Returns the seeds whose phase ends with this step."""
    active = self._active()
    if self._step == self._phase.num_steps:
      return active
    if self._step % self._stop_every:
      return []
    return [
      run
      for lane, run in enumerate(self._seeds)
      if run in active and run.phase.stop(self._lanes.one(self._state, lane))
    ]

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
    batches = self._lanes.packed(
      [sources_lib.draw(x, self._step, count) for x in self._sources]
    )
    # Drawing may hang in one process only; the program waits for all of them.
    hosts.point()
    begun = time.monotonic()
    self._state, self._totals = program(
      self._state,
      self._totals,
      self._frozen,
      batches,
      self._rng,
      self._lanes.index(self._step, [run.is_active for run in self._seeds]),
    )
    if key not in self._compiled:
      self._compile_seconds += time.monotonic() - begun
      self._compiled.add(key)
    self._step += count
    # The next call donates the totals, so it is a copy that is waited for.
    lane = self._seeds.index(self._active()[-1])
    totals = self._lanes.one(self._totals, lane)
    self._in_flight.append(sharding.copied(totals['count']))
    if len(self._in_flight) > CALLS_IN_FLIGHT:
      jax.block_until_ready(self._in_flight.popleft())

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
        'runs': self._lanes.listed([run.kept() for run in self._seeds]),
      }
      self._store.save(self._step, self._tree, meta)
      self._saved_step = self._step

  def _check_finite(self) -> None:
    """Marks the seeds whose loss or state is not finite.

    Raises:
      NonFiniteLossError: all seeds have failed.
    """
    totals = jax.device_get(self._totals)
    have_nan = self._lanes.have_nan(self._state)
    for lane, (run, has_nan) in enumerate(zip(self._seeds, have_nan)):
      bad_step = self._lanes.one(totals, lane)['bad']
      if not run.is_active or (bad_step < 0 and not has_nan):
        continue
      saved = self._saved_step if self._store is not None else 0
      if bad_step >= 0:
        run.fail('loss', int(bad_step) + 1, saved)
      else:
        run.fail('state', self._step, saved)
      if len(self._seeds) > 1:
        self._options.log.say(f'{run.name}: {run.failure}')
    failures = [run.failure for run in self._seeds if run.failure]
    if len(failures) == len(self._seeds):
      raise failures[0]

  def _record(self, runs: Sequence[SeedRun]) -> None:
    """Writes the means of the metrics since the last record."""
    self._check_finite()
    totals = jax.device_get(self._totals)
    self._write(
      'train',
      {
        lane: programs.means(self._lanes.one(totals, lane))
        for lane, run in enumerate(self._seeds)
        if run in runs and run.failure is None
      },
    )

  def _write(self, split: str, metrics: dict[int, dict[str, float]]) -> None:
    """Adds a record for each seed, and shows their means."""
    for lane, of_seed in metrics.items():
      self._seeds[lane].log.write(self._step, split, of_seed)
    if len(self._seeds) > 1 and metrics:
      first, *_ = metrics.values()
      means = {
        key: statistics.fmean(x[key] for x in metrics.values()) for key in first
      }
      self._options.log.write(self._step, split, means)

  def _evaluate(self, runs: Sequence[SeedRun]) -> None:
    """Evaluates the phase's models, and keeps each role's best one."""
    if not self._options.evaluate:
      return
    records: dict[str, dict[int, dict[str, float]]] = {}
    for lane, run in enumerate(self._seeds):
      if run not in runs or run.failure is not None:
        continue
      state, frozen = self._of(lane)
      for split, metrics in run.evaluate(
        state, frozen, self._step, self._options
      ).items():
        records.setdefault(split, {})[lane] = metrics
    for split, of_seeds in records.items():
      self._write(split, of_seeds)

  def _result(self, lane: int) -> Fitted:
    """Finishes the phase of a seed and returns its result so far."""
    run = self._seeds[lane]
    # What is handed on is on one device, as if there were no others.
    state, best_variables = jax.tree.map(
      jnp.asarray,
      sharding.fetch((self._lanes.one(self._state, lane), run.best_variables)),
    )
    # Seeds that train together share the time equally.
    share = len(self._seeds)
    seconds = (self._seconds + time.monotonic() - self._begun) / share
    compile_seconds = self._compile_seconds / share
    cost = PhaseCost(
      self._phase.name,
      self._step if run.ended is None else run.ended,
      seconds,
      compile_seconds,
      (seconds - compile_seconds) * self._devices,
    )
    return run.result(state, best_variables, cost)
