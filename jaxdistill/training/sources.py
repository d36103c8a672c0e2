"""The batches that the streams of a phase draw from."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from jaxdistill.core import checks
from jaxdistill.core.types import Batch, Carry, Dataset, Phase, Stream
from jaxdistill.data.loading import batches, streaming
from jaxdistill.data.sources import parts as parts_lib
from jaxdistill.training.distributed import sharding

Source = batches.Batches | streaming.StreamedBatches


def of_seeds(
  seeds: Sequence[tuple[Phase, Carry, tuple[int, ...]]],
  dataset: Dataset,
  mesh: Mesh,
  workers: int | None = None,
) -> list[dict[str, Source]]:
  """Returns the batches of each seed; all of them share the data's arrays.

  Args:
    seeds: for each seed, its phase, carry and numbers; `of_phase` takes them as
      `phase`, `carry` and `seeds`.
    dataset: see `of_phase`, like the others.
    mesh: the devices.
    workers: the number of processes that load streamed data.
  """
  sources: list[dict[str, Source]] = []
  for phase, carry, numbers in seeds:
    like = sources[0] if sources else None
    sources.append(
      of_phase(phase, carry, dataset, numbers, mesh, workers, like)
    )
  return sources


def of_phase(
  phase: Phase,
  carry: Carry,
  dataset: Dataset,
  seeds: tuple[int, ...],
  mesh: Mesh,
  workers: int | None = None,
  like: Mapping[str, Source] | None = None,
) -> dict[str, Source]:
  """Returns {stream name: its batches}, spread over the mesh.

  Args:
    phase: the phase.
    carry: what the phase before handed on.
    dataset: what 'data' streams draw from.
    seeds: together with the position of the stream, they determine the order of
      the examples.
    mesh: the devices.
    workers: the number of processes that load streamed data; see
      `StreamedBatches`.
    like: the batches of another seed, whose arrays are used again.

  Raises:
    UsageError: there is no such split or no such entry of the carry, or it has
      fewer examples than a batch.
  """
  sources: dict[str, Source] = {}
  for i, (name, stream) in enumerate(phase.streams.items()):
    earlier = (like or {}).get(name)
    if isinstance(earlier, batches.Batches) and stream.source == 'data':
      sources[name] = earlier.in_order_of((*seeds, i))
      continue
    part = parts_lib.part(_arrays(stream, carry, dataset), stream.part)
    common = part, stream.batch_size, (*seeds, i), sharding.rows(mesh)
    if streaming.is_lazy(part):
      sources[name] = streaming.StreamedBatches(*common, workers=workers)
    else:
      sources[name] = batches.Batches(*common)
  return sources


def _arrays(
  stream: Stream, carry: Carry, dataset: Dataset
) -> Mapping[str, Any]:
  """Returns the columns `{name: [N, ...]}` that a stream draws from."""
  if stream.source == 'data':
    checks.choice('split of the data', stream.subset, dataset.splits)
    return dataset.splits[stream.subset]
  checks.choice('source of batches', stream.source, ('data', *carry))
  columns: Mapping[str, Any] = carry[stream.source]
  return columns


def draw(sources: Mapping[str, Any], step: int, count: int) -> dict[str, Batch]:
  """Returns {stream name: the batch of a step, or those of several steps}.

  Args:
    sources: the result of `of_phase`.
    step: the first step.
    count: the number of steps; streamed data allows only 1.

  Returns:
    `{stream: {name: [B, ...]}}`, or `[count, B, ...]` if `count` is above 1.
  """
  if count == 1:
    return {name: source(step) for name, source in sources.items()}
  return {name: source.several(step, count) for name, source in sources.items()}


def one_at_a_time(sources: Mapping[str, Any]) -> bool:
  """Returns whether the batches of several steps cannot be drawn together."""
  return not all(isinstance(x, batches.Batches) for x in sources.values())


def steps_per_epoch(phase: Phase, sources: Mapping[str, Any]) -> int:
  """Returns the length of an epoch, which is that of the first stream.

  A phase without streams is a single epoch.
  """
  for source in sources.values():
    steps: int = source.steps_per_epoch
    return steps
  return phase.num_steps
