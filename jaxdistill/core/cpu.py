"""The cores of the CPU, and whether the fast computations for it are used.

`--fast_cpu` restarts the process with an environment variable. Its value says
what computes the convolutions, and how many devices the processor appears as if
there are several: 'XLA', 'oneDNN' or 'oneDNN, 2 devices'.
"""

from collections.abc import Mapping
import os

MARK = 'JAXDISTILL_FAST_CPU'


def mark(convolutions: str, devices: int) -> str:
  """Returns the value of the environment variable."""
  return convolutions if devices == 1 else f'{convolutions}, {devices} devices'


def setting() -> str:
  """Returns the value of the environment variable, '' without `--fast_cpu`."""
  return os.environ.get(MARK, '')


def convolutions(environment: Mapping[str, str] = os.environ) -> str:
  """Returns 'oneDNN' or 'XLA' after `--fast_cpu`, otherwise ''."""
  return environment.get(MARK, '').partition(',')[0]


def devices() -> int:
  """Returns the number of devices that `--fast_cpu` has made of this CPU."""
  number = setting().partition(',')[2].removesuffix('devices')
  return int(number or 1)


def is_fast() -> bool:
  """Returns whether this process was started by `--fast_cpu`."""
  return bool(setting())


def cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
