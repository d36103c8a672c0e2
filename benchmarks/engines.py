"""What is compared, each in a process of its own; they take turns."""

from collections.abc import Mapping, Sequence
import importlib.util
import os
import statistics
import subprocess
import sys


class Engine:
  """A program that answers each line with a line 'measured NUMBER'."""

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
    self._process.stdin.write(f'{request}\n')
    self._process.stdin.flush()
    for line in self._process.stdout:
      if line.startswith('measured '):
        return float(line.split()[1])
    raise RuntimeError(f'{self._process.args} ended')

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait()


def medians(
  engines: Mapping[str, Engine],
  repeats: int,
  request: str = '',
  warm_up: int = 2,
) -> dict[str, float]:
  """Medians over rounds in which each engine measures once."""
  found: dict[str, list[float]] = {name: [] for name in engines}
  for i in range(repeats + warm_up):  # the first rounds compile
    for name, engine in engines.items():
      measured = engine.measure(request)
      found[name] += [measured] if i >= warm_up else []
  return {name: statistics.median(values) for name, values in found.items()}


def answer(number: float) -> None:
  """What an engine's program says."""
  print('measured', number, flush=True)


def has_torch(python: str) -> bool:
  """Whether a Python has PyTorch."""
  if python == sys.executable:
    return importlib.util.find_spec('torch') is not None
  child = [python, '-c', 'import torch']
  return not subprocess.run(child, capture_output=True, check=False).returncode
