"""Where the batches of a phase come from."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from jaxdistill.data import arrays as arrays_lib
from jaxdistill.data import batches, streaming
from jaxdistill.training import sharding
from jaxdistill.types import Batch, Carry, Dataset, Phase, UsageError


def of_phase(
  phase: Phase,
  carry: Carry,
  dataset: Dataset,
  seeds: tuple[int, ...],
  mesh: Mesh,
  workers: int | None = None,
) -> dict[str, Any]:
  """Stream name -> its batches, spread over the mesh.

  Raises:
    UsageError: there is no such split or key of the carry, or the batches are
      larger than it.
  """
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
    part = arrays_lib.part(arrays, stream.part)
    common = part, stream.batch_size, (*seeds, i), sharding.rows(mesh)
    if streaming.is_lazy(part):
      sources[name] = streaming.StreamedBatches(*common, workers=workers)
    else:
      sources[name] = batches.Batches(*common)
  return sources


def draw(sources: Mapping[str, Any], step: int, count: int) -> dict[str, Batch]:
  """Stream name -> the batch of a step, or those of several, stacked.

  Args:
    sources: see `of_phase`.
    step: the first.
    count: 1, or of how many steps; streamed data has one at a time.

  Returns:
    `{stream: {name: [B, ...]}}`, or `[count, B, ...]` where count is above 1.
  """
  if count == 1:
    return {name: source(step) for name, source in sources.items()}
  return {name: source.several(step, count) for name, source in sources.items()}


def one_at_a_time(sources: Mapping[str, Any]) -> bool:
  """Whether some batch is only loaded when it is its turn."""
  return not all(isinstance(x, batches.Batches) for x in sources.values())


def steps_per_epoch(phase: Phase, sources: Mapping[str, Any]) -> int:
  """Of the first stream; a phase without one is one epoch."""
  for source in sources.values():
    return source.steps_per_epoch
  return phase.num_steps
