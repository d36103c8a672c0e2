"""Measurements of a file with the runtime that its format has."""

from collections.abc import Mapping
from importlib import metadata
import platform
import statistics
import time
from typing import Any

import jax
import numpy as np

from jaxdistill.core.types import Augment, Task
from jaxdistill.study.formats.source import Run

_BATCH = 100
# A latency is the median of at least so many calls, and of calls for at least
# so many seconds.
_CALLS, _SECONDS = 20, 0.5


def score(
  run: Run, split: Mapping[str, Any], task: Task, preprocess: Augment
) -> float:
  """Returns the score of a program on a split.

  Args:
    run: raw images -> outputs.
    split: the raw images and the labels.
    task: what the labels mean.
    preprocess: what evaluation does to a batch; the program does it to the
      images itself.
  """
  parts = []
  for start in range(0, len(split['image']), _BATCH):
    rows = np.arange(start, min(start + _BATCH, len(split['image'])))
    raw = {key: value[rows] for key, value in split.items()}
    batch = preprocess(jax.random.key(0), raw)
    parts.append(task.statistics(run(raw['image']), batch))
  whole = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
  return float(task.summarize(whole)[task.score.name])


def latency(run: Run, image: np.ndarray) -> float:
  """Returns the milliseconds that a program takes for one image.

  Args:
    run: raw images -> outputs.
    image: a raw image, uint8 `[1, H, W, C]`.
  """
  run(image)  # the first call allocates memory
  seconds: list[float] = []
  while len(seconds) < _CALLS or sum(seconds) < _SECONDS:
    start = time.perf_counter()
    run(image)
    seconds.append(time.perf_counter() - start)
  return 1e3 * statistics.median(seconds)


def machine(runtime: str) -> dict[str, Any]:
  """Returns what a latency depends on, as JSON.

  Args:
    runtime: the name of the package that runs the file.
  """
  return {
    'processor': _processor(),
    'runtime': f'{runtime} {metadata.version(runtime)}',
    'threads': 1,
  }


def _processor() -> str:
  """Returns the name of the processor, as far as the system tells it."""
  try:
    with open('/proc/cpuinfo') as file:
      names = [
        line.partition(':')[2].strip()
        for line in file
        if line.startswith('model name')
      ]
  except OSError:
    names = []
  return names[0] if names else platform.processor() or platform.machine()
