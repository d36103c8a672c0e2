"""A process environment in which XLA trains convolutions faster on a CPU.

Huge pages avoid page faults in XLA's buffers. YNNPACK is used only for single
matrix products, elementwise operations and reductions, because Eigen's
convolutions are faster. Both settings are read when a process starts, so the
process has to be restarted. The results differ slightly from those without the
settings, because floating point sums are computed in another order.
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
MARK = 'JAXDISTILL_FAST_CPU'  # set in a process that has been restarted


def active() -> bool:
  """Returns whether this process was started in that environment."""
  return MARK in os.environ


def environment(old: Mapping[str, str]) -> dict[str, str]:
  """Returns that environment, keeping the settings of the user.

  Args:
    old: the environment variables of this process.
  """
  flags = f'{old.get("XLA_FLAGS", "")} {FLAGS}'.strip()
  tunables = ':'.join(filter(None, (old.get('GLIBC_TUNABLES'), TUNABLES)))
  return {**old, 'XLA_FLAGS': flags, 'GLIBC_TUNABLES': tunables, MARK: '1'}


def restart(arguments: Sequence[str]) -> None:
  """Restarts the command line in that environment, once.

  Returns without a restart if the process is in that environment already, if it
  runs under pytest or in a notebook, or if XLA does not know the flags. Unknown
  flags would end the process at its start, so a child process tries them first.

  Args:
    arguments: the arguments of the command line.
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
      'continuing without them',
      file=sys.stderr,
    )
    return
  command = [sys.executable, '-m', 'jaxdistill.main', *arguments]
  os.execve(sys.executable, command, fast)
