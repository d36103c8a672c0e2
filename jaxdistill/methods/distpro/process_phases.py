"""The phases that write a process into the carry, and that train with one."""

from collections.abc import Mapping
import functools
import math
from typing import Any

import numpy as np

from jaxdistill import phases
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Carry, Phase, Stream
from jaxdistill.methods.distpro import forward
from jaxdistill.methods.distpro import process as process_lib
from jaxdistill.methods.distpro import search_phase as search_lib
from jaxdistill.methods.distpro.process import Process


def searching_phase(
  networks: forward.Forward,
  streams: Mapping[str, Stream],
  rules: search_lib.Rules,
  knots: int | None,
) -> Phase:
  """Builds the phase that searches a process and stores it in the carry.

  Args:
    networks: the networks with their pathways.
    streams: 'train' and 'validation'.
    rules: how the weights are learned.
    knots: the number of knots; None means one for each epoch.
  """
  recipe, paths = networks.recipe, networks.paths.paths
  steps_per_knot = recipe.steps_per_epoch
  if knots is not None:
    steps_per_knot = math.ceil(recipe.num_steps / knots)

  def finish(knots: search_lib.Knots, carry: Carry) -> Carry:
    steps, raw, weights = map(np.asarray, knots[1:])
    num_steps = int(knots.taken.sum())
    process = Process(paths, steps, num_steps, raw, weights)
    return {**carry, 'process': process_lib.to_arrays(process)}

  def report(carry: Carry) -> dict[str, Any]:
    process = process_in(carry)._replace(about=networks.about(carry))
    return {'process.json': process_lib.to_json(process)}

  return search_lib.search_phase(
    'search',
    networks.train,
    networks.validate,
    recipe.optimizer(recipe.num_steps),
    rules,
    num_summands=len(paths),
    num_steps=recipe.num_steps,
    steps_per_knot=steps_per_knot,
    streams=streams,
    networks=networks.networks,
    student=networks.student,
    adapters=networks.adapters,
    finish=finish,
    report=report,
  )


def process_in(carry: Carry) -> Process:
  """Returns the process that a search left in the carry.

  Args:
    carry: what the phases so far have handed on.

  Raises:
    UsageError: no search ran before.
  """
  if 'process' not in carry:
    raise UsageError(
      "process: expected a file that a search wrote ('process.json'), got "
      "none; use the method distpro, which searches first, or use='equal'"
    )
  return process_lib.from_arrays(carry['process'])


def training_phase(
  name: str,
  networks: forward.Forward,
  process: Process,
  factor: float,
  threshold: float | None,
  segments: int,
) -> Phase:
  """Builds the phase that trains with a process, one program per segment.

  Args:
    name: the name of the phase.
    networks: the networks with their pathways.
    process: the weights of the pathways over time.
    factor: the factor on the weighted losses of the pathways.
    threshold: see `method.distpro_retrain`.
    segments: see `method.distpro_retrain`.
  """
  num_steps = networks.recipe.num_steps
  sets = process_lib.active_sets(
    process, num_steps, threshold=threshold, segments=segments
  )
  optimizer = networks.recipe.optimizer(num_steps)

  @functools.cache
  def program(active: tuple[int, ...]) -> Phase:
    def loss_fn(variables, batches, rng, progress):
      (loss, summands), (updates, metrics) = networks.train(
        variables, batches['train'], rng, progress, active
      )
      fraction = progress * num_steps / max(1, num_steps - 1)
      weights = process_lib.masked(
        *process_lib.at(process, fraction), threshold
      )
      distance = weights @ summands
      loss += factor * distance
      return loss, (updates, {**metrics, 'pathways': distance})

    return phases.gradient_phase(
      name,
      loss_fn,
      optimizer,
      num_steps=num_steps,
      streams={'train': networks.recipe.stream},
      networks=networks.networks,
      trainable={networks.student: None},
      adapters=networks.adapters,
    )

  def step(state, frozen, batches, rng, static):
    return program(static).step(state, frozen, batches, rng, None)

  all_pathways = program(tuple(range(len(networks.paths.paths))))
  return all_pathways._replace(
    static=lambda step: process_lib.set_at(sets, step, num_steps),
    step=step,
  )
