"""A process environment in which training is faster on a CPU.

Huge pages avoid page faults in XLA's buffers. Dense convolutions are computed
by the library oneDNN that jaxlib contains, if it agrees with XLA on this
machine, and YNNPACK is then used only for reductions. Otherwise YNNPACK is used
for single matrix products, elementwise operations and reductions, because
Eigen's convolutions are faster. With oneDNN and several cores, the processor
appears as two devices that share each batch, because XLA computes many
operations of one device on one core. These settings are read when a process
starts, so the process has to be restarted. The results differ slightly from
those without the settings, because floating point sums are computed in another
order.
"""

from collections.abc import Mapping, Sequence
import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

from jaxdistill import _version
from jaxdistill.core import cpu

_TYPE = 'LIBRARY_FUSION_TYPE_'
# What computes the convolutions -> what YNNPACK computes; the fastest first.
FUSIONS = {
  'oneDNN': f'{_TYPE}REDUCE',
  'XLA': f'{_TYPE}INDIVIDUAL_DOT,{_TYPE}ELTWISE,{_TYPE}REDUCE',
}
# An unknown flag or a wrong call of oneDNN ends a process, so that a child
# process tries them first.
TRIALS = {
  'oneDNN': 'from jaxdistill.networks.layers import onednn; onednn.check()',
  'XLA': 'import jax; jax.devices()',
}
TUNABLES = 'glibc.malloc.hugetlb=1'
DEVICES = 2
COUNT_FLAG = '--xla_force_host_platform_device_count'
THREADS = 'PJRT_NPROC'


def environment(
  old: Mapping[str, str], convolutions: str, cores: int
) -> dict[str, str]:
  """Returns that environment, keeping the settings of the user.

  Args:
    old: the environment variables of this process.
    convolutions: what computes the convolutions, 'oneDNN' or 'XLA'.
    cores: the number of cores that one process may use for a run.
  """
  flags = [
    old.get('XLA_FLAGS', ''),
    f'--xla_cpu_experimental_ynn_fusion_type={FUSIONS[convolutions]}',
  ]
  tunables = ':'.join(filter(None, (old.get('GLIBC_TUNABLES'), TUNABLES)))
  new, devices = {**old, 'GLIBC_TUNABLES': tunables}, 1
  has_number = COUNT_FLAG in flags[0] or 'JAX_NUM_CPU_DEVICES' in old
  if convolutions == 'oneDNN' and cores > 1 and not has_number:
    devices = DEVICES
    flags.append(f'{COUNT_FLAG}={devices}')
    # A device that waits for another one holds a thread. If there were only as
    # many threads as cores, a core would then have nothing to do.
    new.setdefault(THREADS, str(cores + devices))
  new['XLA_FLAGS'] = ' '.join(flags).strip()
  new[cpu.MARK] = cpu.mark(convolutions, devices)
  return new


def fastest(old: Mapping[str, str], cores: int) -> dict[str, str] | None:
  """Returns the fastest such environment that works; None: none does.

  Args:
    old: the environment variables of this process.
    cores: see `environment`.
  """
  choices = (environment(old, convolutions, cores) for convolutions in FUSIONS)
  return next(filter(works, choices), None)


def restart(arguments: Sequence[str], *, is_alone: bool = True) -> None:
  """Restarts the command line in the fastest such environment, once.

  Returns without a restart if the process is in such an environment already, if
  it runs under pytest or in a notebook, or if XLA does not know the flags.

  Args:
    arguments: the arguments of the command line.
    is_alone: whether no other processes train together with this one.
  """
  if cpu.is_fast() or {'pytest', 'IPython'} & sys.modules.keys():
    return
  fast = fastest(os.environ, cpu.cores() if is_alone else 1)
  if fast is None:
    print(
      'jaxdistill: --fast_cpu: this version of XLA does not know the flags; '
      'continuing without them',
      file=sys.stderr,
    )
    return
  command = [sys.executable, '-m', 'jaxdistill.main', *arguments]
  os.execve(sys.executable, command, fast)


def works(fast: Mapping[str, str]) -> bool:
  """Returns whether a child process runs in an environment.

  A success is remembered in the library's cache folder. A failure is not,
  because it may have another reason, such as too little memory.
  """
  from jaxdistill.data.loading import cache

  settings = [fast[key] for key in ('XLA_FLAGS', 'GLIBC_TUNABLES', cpu.MARK)]
  versions = (importlib.metadata.version('jaxlib'), _version.__version__)
  facts = '\0'.join((*settings, *versions, _processor()))
  name = hashlib.sha256(facts.encode()).hexdigest()
  success = cache.folder() / 'fast_cpu' / name
  if success.exists():
    return True
  if subprocess.run(
    [sys.executable, '-c', TRIALS[cpu.convolutions(fast)]],
    env={**fast, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    check=False,
  ).returncode:
    return False
  with contextlib.suppress(OSError):
    success.parent.mkdir(parents=True, exist_ok=True)
    success.touch()
  return True


def _processor() -> str:
  """Returns the processor's model and instruction sets, as far as known."""
  names = ('model name', 'flags', 'Features', 'CPU implementer', 'CPU part')
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  facts = sorted({line for line in lines if line.startswith(names)})
  return '\n'.join((*facts, platform.machine()))
