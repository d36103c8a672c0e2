"""Whether this process uses the computations that are fast on a CPU.

`--fast_cpu` restarts the process with an environment variable that says so.
"""

import os

MARK = 'JAXDISTILL_FAST_CPU'


def convolutions() -> str:
  """Returns 'oneDNN' or 'XLA' after `--fast_cpu`, otherwise ''."""
  return os.environ.get(MARK, '')


def is_fast() -> bool:
  """Returns whether this process was started by `--fast_cpu`."""
  return bool(convolutions())
