"""Programs that are compared: each in a process of its own, taking turns."""

from collections.abc import Callable, Mapping, Sequence
import importlib.util
import os
import pathlib
import statistics
import subprocess
import sys


class Engine:
  """A process that answers each line of input with a line 'measured NUMBER'."""

  def __init__(
    self,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
  ):
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, **(environment or {})},
    )

  def measure(self, request: str = '') -> float:
    """Returns the answer to a request; other lines of output are ignored."""
    self._process.stdin.write(f'{request}\n')
    self._process.stdin.flush()
    for line in self._process.stdout:
      if line.startswith('measured '):
        return float(line.split()[1])
    raise RuntimeError(f'{self._process.args} ended without an answer')

  def close(self) -> None:
    """Ends the process and waits for it."""
    self._process.stdin.close()
    self._process.wait()


def rounds(
  engines: Mapping[str, Engine],
  repeats: int,
  request: str = '',
  warm_up: int = 2,
) -> dict[str, list[float]]:
  """Returns each engine's numbers from rounds in which each measures once.

  Args:
    engines: name -> engine.
    repeats: the number of rounds that count.
    request: what to measure.
    warm_up: the number of rounds before them, which compile.
  """
  numbers: dict[str, list[float]] = {name: [] for name in engines}
  for i in range(repeats + warm_up):
    for name, engine in engines.items():
      number = engine.measure(request)
      if i >= warm_up:
        numbers[name].append(number)
  return numbers


def medians(
  engines: Mapping[str, Engine],
  repeats: int,
  request: str = '',
  warm_up: int = 2,
) -> dict[str, float]:
  """Returns the medians of `rounds`."""
  numbers = rounds(engines, repeats, request, warm_up)
  return {name: statistics.median(values) for name, values in numbers.items()}


def ratio(numbers: Sequence[float], others: Sequence[float]) -> str:
  """Returns the median and the quartiles of the ratios in each round."""
  ratios = [number / other for number, other in zip(numbers, others)]
  low, middle, high = statistics.quantiles(ratios, n=4, method='inclusive')
  return f'{middle:.2f} [{low:.2f}, {high:.2f}]'


def peak_memory(run: Callable[[], object]) -> int:
  """Returns the largest resident memory of this process during a call.

  It counts everything in bytes, libraries included, and works on Linux only.
  """
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # resets the peak
  run()
  status = pathlib.Path('/proc/self/status').read_text()
  line = next(x for x in status.splitlines() if x.startswith('VmHWM:'))
  return 1024 * int(line.split()[1])


def answer(number: float) -> None:
  """Prints the answer of an engine's program to a request."""
  print('measured', number, flush=True)


def has_torch(python: str) -> bool:
  """Returns whether a Python interpreter has PyTorch.

  Args:
    python: the path of its program.
  """
  if python == sys.executable:
    return importlib.util.find_spec('torch') is not None
  child = [python, '-c', 'import torch']
  return not subprocess.run(child, capture_output=True, check=False).returncode
