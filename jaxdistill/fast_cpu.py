"""The process environment in which XLA trains convolutions faster on a CPU.

Huge pages spare the page faults of XLA's buffers, and of YNNPACK only single
products, elementwise operations and reductions are taken, as Eigen's
convolutions are faster. Both are read when a process starts, hence the restart.
Results differ from those without in the order of floating point sums.
"""

from collections.abc import Mapping, Sequence
import os
import subprocess
import sys

FLAGS = (
  '--xla_cpu_experimental_ynn_fusion_type='
  'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_ELTWISE,'
  'LIBRARY_FUSION_TYPE_REDUCE'
)
TUNABLES = 'glibc.malloc.hugetlb=1'
MARK = 'JAXDISTILL_FAST_CPU'  # set in a process that was started so


def active() -> bool:
  """Whether this process was started in that environment."""
  return MARK in os.environ


def environment(old: Mapping[str, str]) -> dict[str, str]:
  """The environment, what the user set kept."""
  flags = f'{old.get("XLA_FLAGS", "")} {FLAGS}'.strip()
  tunables = ':'.join(filter(None, (old.get('GLIBC_TUNABLES'), TUNABLES)))
  return {**old, 'XLA_FLAGS': flags, 'GLIBC_TUNABLES': tunables, MARK: '1'}


def restart(arguments: Sequence[str]) -> None:
  """Starts the command line again in that environment, once.

  Returns where the process is so already, where XLA does not know the flags
  (which would end the process at its start, so a child tries them), and under
  pytest and in notebooks.

  Args:
    arguments: of the command line.
  """
  if active() or {'pytest', 'IPython'} & sys.modules.keys():
    return
  fast = environment(os.environ)
  child = [sys.executable, '-c', 'import jax; jax.devices()']
  if subprocess.run(
    child,
    env={**fast, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    check=False,
  ).returncode:
    print(
      'jaxdistill: --fast_cpu: this version of XLA does not know the flags; '
      'going on without',
      file=sys.stderr,
    )
    return
  command = [sys.executable, '-m', 'jaxdistill.main', *arguments]
  os.execve(sys.executable, command, fast)
