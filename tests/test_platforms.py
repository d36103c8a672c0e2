"""What the library needs of the operating system: nothing but Python."""

import subprocess
import sys
import textwrap

# Modules of Python that exist on Linux and macOS only, and packages that the
# library declares for Linux only.
HIDE = """
import sys
for name in ('fcntl', 'resource', 'grain', 'array_record'):
  sys.modules[name] = None
"""
CONFIG = """
config = {
  'data': {'name': 'digits', 'train_subset': 64},
  'student': {'name': 'resnet8', 'stem_width': 4, 'widths': (4, 4, 4)},
  'subset': 'train_subset',
  'batch_size': 64,
  'epochs': 1,
  'methods': {'alone': {'name': 'supervised'}},
}
"""
# What Windows has in place of fcntl: one byte of a file is locked at a time.
WINDOWS_LOCKS = """
import types
held = set()
def locking(descriptor, mode, count):
  import os
  key = os.fstat(descriptor).st_ino
  assert mode == 2 and count == 1
  if key in held:
    raise PermissionError(13, 'Permission denied')
  held.add(key)
sys.modules['msvcrt'] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
"""


def run(*code: str, argument: str = '') -> str:
  """Runs code in a new process; returns what it prints."""
  lines = '\n'.join(textwrap.dedent(part) for part in code)
  command = [sys.executable, '-c', lines, argument]
  return subprocess.run(
    command, capture_output=True, text=True, check=True
  ).stdout


def test_a_plan_is_built_without_the_modules_of_linux():
  code = """
  import jaxdistill.main
  from jaxdistill.data.sources import tfds
  from jaxdistill.study import build
  plan = build.plan(config)
  tfds.allow_open_files(10**9)  # other systems have no such limit
  print(*(row.label for row in plan.rows))
  """
  assert run(HIDE, CONFIG, code).split() == ['alone']


def test_a_work_directory_is_locked_without_the_modules_of_linux(tmp_path):
  code = """
  import pathlib
  from jaxdistill.core.checks import UsageError
  with workdir.locked(pathlib.Path(sys.argv[1])):
    try:
      with workdir.locked(pathlib.Path(sys.argv[1])):
        print('locked twice')
    except UsageError as error:
      print(error)
  """
  # Python takes a process for one on Windows if it imports msvcrt early.
  early = 'from jaxdistill.study import workdir'
  printed = run(HIDE, early, WINDOWS_LOCKS, code, argument=str(tmp_path))
  assert printed == f'workdir: another run is using {tmp_path}\n'
