"""The one loop: runs the phases of any method, keeps and resumes them."""

from collections.abc import Callable
import contextlib
import functools
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from jaxdistill.data import arrays as arrays_lib
from jaxdistill.data import batches, streaming
from jaxdistill.training import checkpoint, hosts, sharding
from jaxdistill.training.log import Log
from jaxdistill.types import (
  Array,
  Carry,
  Dataset,
  Method,
  Model,
  Phase,
  PyTree,
  UsageError,
)


class Interrupted(Exception):
  """The run was asked to stop; its state is on disk."""


class NonFiniteLossError(RuntimeError):
  """The loss became infinite or no number."""


class Options(NamedTuple):
  """How a run is watched, kept and laid out.

  None of it changes what is trained, but for the order of sums over devices;
  `evaluate_every` and `score` choose the best epoch.

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
  sources = _sources(
    phase, fitted.carry, dataset, (seed, order), mesh, options.workers
  )
  epoch = _epoch(phase, sources)
  state, kept = phase.init(init_rng, fitted.carry)
  # The buffers of the state are donated: the carry keeps its own.
  state = sharding.place(jax.tree.map(jnp.copy, state), mesh)
  frozen = sharding.place(kept, mesh)
  step_rng = sharding.place_key(step_rng, mesh)
  compiled = _compile(phase, sharding.layout(state, mesh), mesh)
  first = _draw(sources, 0)
  totals = _zero_totals(phase, state, frozen, first, step_rng)
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
    if bad >= 0 or _has_nan(tree['state']):
      last = f'{saved_at}' if store is not None and saved_at else 'none'
      raise NonFiniteLossError(
        f'the {what} is not finite at step {at} of phase {phase.name!r}; '
        f'last good checkpoint of this phase: {last}'
      )

  # Several processes agree only where they wait for the devices anyway.
  pace = 1 if hosts.alone() else options.log_every
  saved_time = time.monotonic()
  start, batch_images = step, _images(first)
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
      program, drawn = compiled(phase.static(step)), _draw(sources, step)
      hosts.point()  # what may hang alone is behind, what waits is ahead
      tree['state'], tree['totals'] = program(
        tree['state'], tree['totals'], frozen, drawn, step_rng, np.int32(step)
      )
      step += 1
      ended = step % epoch == 0 or step == phase.num_steps
      last = step == phase.num_steps or (ended and phase.stop(tree['state']))
      if step % options.log_every == 0 or last:
        check_finite()
        options.log.write(step, 'train', _means(tree['totals']))
        tree['totals'] = _cleared(tree['totals'])
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


def _compile(phase: Phase, layout: PyTree, mesh: Mesh) -> Callable[..., Any]:
  """static -> the jitted step with its augmentation and running totals."""
  shardings = (layout, sharding.whole(mesh))

  @functools.cache
  def program(static):
    @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=shardings)
    def step(state, totals, frozen, drawn, rng, index):
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        state, metrics = _one_step(
          phase, state, frozen, drawn, rng, index, static
        )
      fine = jnp.isfinite(metrics['loss'])
      bad = jnp.where(~fine & (totals['bad'] < 0), index, totals['bad'])
      sums = jax.tree.map(jnp.add, totals['sums'], metrics)
      return state, {'sums': sums, 'count': totals['count'] + 1, 'bad': bad}

    return step

  return program


def _one_step(phase, state, frozen, drawn, rng, index, static):
  rng = jax.random.fold_in(rng, index)
  augmented = {
    name: phase.streams[name].augment(jax.random.fold_in(rng, i + 1), batch)
    for i, (name, batch) in enumerate(drawn.items())
  }
  state, metrics = phase.step(state, frozen, augmented, rng, static)
  return state, {k: v.astype(jnp.float32) for k, v in metrics.items()}


def _zero_totals(phase, state, frozen, drawn, rng) -> PyTree:
  """Sums of the metrics since the last record, and the first bad step."""
  step = functools.partial(_one_step, phase, static=phase.static(0))
  _, metrics = jax.eval_shape(
    lambda *a: step(*a), state, frozen, drawn, rng, np.int32(0)
  )
  sums = {k: jnp.zeros(v.shape, v.dtype) for k, v in metrics.items()}
  return {'sums': sums, 'count': jnp.int32(0), 'bad': jnp.int32(-1)}


@jax.jit
def _has_nan(tree: PyTree) -> Array:
  """Whether any number is none; a gradient may be NaN where the loss is not."""
  floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x, jnp.inexact)]
  return jnp.any(jnp.array([jnp.isnan(x).any() for x in floats] or [False]))


def _cleared(totals: PyTree) -> PyTree:
  zeros = jax.tree.map(jnp.zeros_like, totals)
  return {**zeros, 'bad': zeros['bad'] - 1}


def _means(totals: PyTree) -> dict[str, float]:
  totals = jax.device_get(totals)
  return {k: float(v / totals['count']) for k, v in totals['sums'].items()}


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


def _sources(
  phase, carry, dataset, seeds, mesh, workers=None
) -> dict[str, Any]:
  """Stream name -> its batches, spread over the mesh."""
  sources: dict[str, Any] = {}
  for i, (name, stream) in enumerate(phase.streams.items()):
    if stream.source == 'data':
      if stream.subset not in dataset.splits:
        raise UsageError(
          f'no split {stream.subset!r} in the data; valid: '
          f'{", ".join(dataset.splits)}'
        )
      arrays = dataset.splits[stream.subset]
    elif stream.source in carry:
      arrays = carry[stream.source]
    else:
      raise UsageError(
        f'no source {stream.source!r} of batches; valid: data, '
        f'{", ".join(carry)}'
      )
    arrays = arrays_lib.part(arrays, stream.part)
    common = arrays, stream.batch_size, (*seeds, i), sharding.rows(mesh)
    if streaming.is_lazy(arrays):
      sources[name] = streaming.StreamedBatches(*common, workers=workers)
    else:
      sources[name] = batches.Batches(*common)
  return sources


def _draw(sources, step) -> dict[str, Any]:
  return {name: source(step) for name, source in sources.items()}


def _epoch(phase, sources) -> int:
  """Steps of an epoch of the first stream; the whole phase without one."""
  for source in sources.values():
    return source.steps_per_epoch
  return phase.num_steps


def _images(drawn) -> int:
  return sum(len(next(iter(batch.values()))) for batch in drawn.values())


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
