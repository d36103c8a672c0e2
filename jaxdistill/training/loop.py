"""The one loop: runs the phases of any method, keeps and resumes them."""

from collections.abc import Callable
import contextlib
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.training import checkpoint, hosts, programs, sharding
from jaxdistill.training import sources as sources_lib
from jaxdistill.training.log import Log
from jaxdistill.types import (
  Carry,
  Dataset,
  Method,
  Model,
  Phase,
)


class Interrupted(Exception):
  """The run was asked to stop; its state is on disk."""


class NonFiniteLossError(RuntimeError):
  """The loss became infinite or no number."""


class Options(NamedTuple):
  """How a run is watched, kept and laid out.

  None of it changes what is trained, but for rounding: over several devices,
  and with another `steps_per_call` or `log_every` where calls have several
  steps. `evaluate_every` and `score` choose the best epoch.

  Attributes:
    directory: where it can resume from; None: nowhere.
    evaluate: model -> {metric: value} on the validation split.
    score: the metric that chooses the best epoch.
    evaluate_every: epochs.
    log_every: steps per record.
    checkpoint_seconds: least time between two checkpoints.
    log: where the numbers go; of the first process alone, if there are several.
    interrupted: asked whether to stop, at each step; of several processes at
      every `log_every` steps, where one that says so stops all.
    workers: processes that load streamed data; None: as many as fit the
      machine, see `data.streaming`.
    model_parallel: how many devices share each large array of the state; the
      batches are spread over groups of that many.
    steps_per_call: how many steps the devices take in one call, from data in
      memory; small networks wait for the host else. None: 1 on CPUs, which do
      not, and 10 on others. Calls end at epochs, records and multiples of it.
  """

  directory: str | None = None
  evaluate: Callable[[Model], dict[str, float]] | None = None
  score: str = 'top1'
  evaluate_every: int = 1
  log_every: int = 50
  checkpoint_seconds: float = 60.0
  log: Log = Log(show=False)
  interrupted: Callable[[], bool] = lambda: False
  workers: int | None = None
  model_parallel: int = 1
  steps_per_call: int | None = None


class Fitted(NamedTuple):
  """What a run ends with.

  Attributes:
    carry: what the last phase handed on.
    best: role -> the model at the epoch that the score chose in the last phase
      that showed it.
    best_step: role -> that phase's step.
    steps: taken in all.
    seconds: spent in all, over every process that worked on it.
    reports: file name -> JSON that phases made.
  """

  carry: Carry
  best: dict[str, Model]
  best_step: dict[str, int]
  steps: int
  seconds: float
  reports: dict[str, Any]


def fit(
  method: Method,
  carry: Carry,
  dataset: Dataset,
  *,
  seed: int = 0,
  options: Options | None = None,
) -> Fitted:
  """Runs a method from where its directory says it stopped.

  On one kind of device a resumed run ends with the same bits as one that was
  never stopped: batches and keys are functions of the seed and the step. On
  another number of devices it goes on too, and ends close by.

  The steps run on all devices of all processes, the batches spread over them.

  Args:
    method: the phases.
    carry: what the first one gets; models by role.
    dataset: what 'data' streams draw from.
    seed: of the order of examples and of all random numbers.
    options: how it is watched and kept.

  Raises:
    NonFiniteLossError: names step, phase and last checkpoint.
    Interrupted: `options.interrupted` said so.
    UsageError: a stream cannot be had from the data, or its batches do not
      spread over the devices.
  """
  options = options or Options(log=Log())
  fitted = Fitted(dict(carry), {}, {}, 0, 0.0, {})
  for order, make in enumerate(method):
    done = _file(options, f'phase{order}.safetensors')
    if done is not None and hosts.of_first(done.exists):
      fitted = _load(done, fitted)
    else:
      phase, before = make(fitted.carry), fitted
      fitted = _run_phase(phase, order, fitted, dataset, seed, options)
      if done is not None and hosts.first():
        _save(done, fitted, before)
      hosts.meet()
    if done is not None and hosts.first():
      checkpoint.delete(done.with_name(f'checkpoints{order}'))
  return fitted


class _Best(NamedTuple):
  """The best evaluation of a view so far, on the host but for the variables."""

  score: float
  step: int


def _run_phase(
  phase: Phase,
  order: int,
  fitted: Fitted,
  dataset: Dataset,
  seed: int,
  options: Options,
) -> Fitted:
  begun = time.monotonic()
  rng = jax.random.fold_in(jax.random.key(seed), order)
  init_rng, step_rng = jax.random.split(rng)
  mesh = sharding.make_mesh(options.model_parallel)
  for stream in phase.streams.values():
    sharding.check_batch_size(stream.batch_size, mesh)
  sources = sources_lib.of_phase(
    phase, fitted.carry, dataset, (seed, order), mesh, options.workers
  )
  epoch = sources_lib.steps_per_epoch(phase, sources)
  per_call = options.steps_per_call or _steps_per_call()
  if sources_lib.one_at_a_time(sources):
    per_call = 1
  state, kept = phase.init(init_rng, fitted.carry)
  # The buffers of the state are donated: the carry keeps its own.
  state = sharding.place(jax.tree.map(jnp.copy, state), mesh)
  frozen = sharding.place(kept, mesh)
  step_rng = sharding.place_key(step_rng, mesh)
  compiled = programs.compiled(phase, sharding.layout(state, mesh), mesh)
  first = sources_lib.draw(sources, 0, 1)
  totals = programs.zero_totals(phase, state, frozen, first, step_rng)
  totals = sharding.place(totals, mesh)
  best_variables = {
    name: jax.tree.map(jnp.copy, view(state, frozen).variables)
    for name, view in phase.views.items()
    if options.evaluate is not None and name in fitted.carry
  }
  best = {name: _Best(-np.inf, 0) for name in best_variables}
  tree = {'state': state, 'totals': totals, 'best': best_variables}
  step, seconds = 0, 0.0
  store = _checkpoints(options, order)
  if store is not None:
    step, tree, meta, problems = store.load(tree)
    for problem in problems:
      options.log.say(f'skipped a damaged {problem}')
    if meta:
      seconds = meta['seconds']
      best = {k: _Best(*v) for k, v in meta['best'].items()}
  saved_at = step
  options.log.begin(order, phase.name, step, phase.num_steps, fitted.steps)

  def save() -> None:
    nonlocal saved_at
    check_finite()
    if store is not None and saved_at != step:
      meta = {
        'seconds': seconds + time.monotonic() - begun,
        'best': {k: list(v) for k, v in best.items()},
      }
      store.save(step, tree, meta)
      saved_at = step

  def check_finite() -> None:
    bad = int(tree['totals']['bad'])
    what, at = ('loss', bad + 1) if bad >= 0 else ('state', step)
    if bad >= 0 or programs.has_nan(tree['state']):
      last = f'{saved_at}' if store is not None and saved_at else 'none'
      raise NonFiniteLossError(
        f'the {what} is not finite at step {at} of phase {phase.name!r}; '
        f'last good checkpoint of this phase: {last}'
      )

  # Several processes agree only where they wait for the devices anyway.
  pace = 1 if hosts.alone() else options.log_every
  saved_time = time.monotonic()
  start = step
  batch_images = sum(stream.batch_size for stream in phase.streams.values())
  with contextlib.ExitStack() as stack:
    for thing in (options.log, *sources.values(), *([store] if store else [])):
      stack.enter_context(contextlib.closing(thing))
    while step < phase.num_steps:
      if step % pace == 0:
        passed = time.monotonic() - saved_time
        stopped, due = hosts.any_of(
          options.interrupted(), passed >= options.checkpoint_seconds
        )
        if stopped or due:
          save()
          saved_time = time.monotonic()
        if stopped:
          raise Interrupted(f'stopped at step {step} of phase {phase.name!r}')
      count = programs.together(
        phase, step, (epoch, options.log_every), per_call
      )
      program = compiled(phase.static(step), count)
      drawn = sources_lib.draw(sources, step, count)
      hosts.point()  # what may hang alone is behind, what waits is ahead
      tree['state'], tree['totals'] = program(
        tree['state'], tree['totals'], frozen, drawn, step_rng, np.int32(step)
      )
      step += count
      ended = step % epoch == 0 or step == phase.num_steps
      last = step == phase.num_steps or (ended and phase.stop(tree['state']))
      if step % options.log_every == 0 or last:
        check_finite()
        options.log.write(step, 'train', programs.means(tree['totals']))
        tree['totals'] = programs.cleared(tree['totals'])
      options.log.advance(step, (step - start) * batch_images)
      if ended and ((step // epoch) % options.evaluate_every == 0 or last):
        _evaluate(phase, step, tree, frozen, best, options)
      if last:
        break
    check_finite()
    options.log.end()
  # What is handed on lies on one device, as if there were no others.
  state, best_variables = jax.tree.map(
    jnp.asarray, sharding.fetch((tree['state'], tree['best']))
  )
  carry = phase.finish(state, kept, fitted.carry)
  report = phase.report(state, carry)
  shown = {k: v for k, v in phase.views.items() if k in best}
  return Fitted(
    carry,
    {
      **fitted.best,
      **{
        name: Model(view(state, kept).network, best_variables[name])
        for name, view in shown.items()
      },
    },
    {**fitted.best_step, **{k: v.step for k, v in best.items()}},
    fitted.steps + step,
    fitted.seconds + seconds + time.monotonic() - begun,
    {**fitted.reports, **report},
  )


def _steps_per_call() -> int:
  return 1 if jax.default_backend() == 'cpu' else 10


def _evaluate(phase, step, tree, frozen, best, options) -> None:
  """Evaluates the views, and keeps the roles that are the best so far."""
  for name, view in phase.views.items() if options.evaluate else ():
    model = view(tree['state'], frozen)
    metrics = options.evaluate(model)
    split = 'validation' if list(best) == [name] else f'validation/{name}'
    options.log.write(step, split, {**metrics})
    if name in best and metrics[options.score] > best[name].score:
      best[name] = _Best(metrics[options.score], step)
      tree['best'][name] = jax.tree.map(jnp.copy, model.variables)


def _file(options: Options, name: str) -> pathlib.Path | None:
  return (
    None if options.directory is None else pathlib.Path(options.directory, name)
  )


def _checkpoints(options: Options, order: int) -> checkpoint.Checkpoints | None:
  path = _file(options, f'checkpoints{order}')
  return None if path is None else checkpoint.Checkpoints(path)


def _save(path: pathlib.Path, fitted: Fitted, before: Fitted) -> None:
  """Writes what a phase changed; the best models stand beside the carry."""
  meta = {
    'best_step': fitted.best_step,
    'steps': fitted.steps,
    'seconds': fitted.seconds,
    'reports': fitted.reports,
  }
  checkpoint.save_carry(path, _entries(fitted), _entries(before), meta)


def _load(path: pathlib.Path, before: Fitted) -> Fitted:
  carry, meta = checkpoint.load_carry(path, _entries(before))
  best = {role: carry.pop(f'{role}@best') for role in meta['best_step']}
  return Fitted(
    carry,
    best,
    meta['best_step'],
    meta['steps'],
    meta['seconds'],
    meta['reports'],
  )


def _entries(fitted: Fitted) -> Carry:
  best = {f'{role}@best': model for role, model in fitted.best.items()}
  return {**fitted.carry, **best}
