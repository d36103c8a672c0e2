"""The option that restarts the command line in a faster environment."""

import os
import subprocess
import sys

import pytest

from jaxdistill.training import fast_cpu


class Restarted(Exception):
  """Raised instead of replacing the process."""


@pytest.fixture
def restarted(monkeypatch):
  """The calls that would replace the process, as if pytest were not running."""
  calls = []

  def execve(path, command, environment):
    calls.append((path, command, environment))
    raise Restarted

  monkeypatch.setattr(os, 'execve', execve)
  hosts = ('pytest', 'IPython')
  modules = {k: v for k, v in sys.modules.items() if k not in hosts}
  monkeypatch.setattr(fast_cpu.sys, 'modules', modules)
  monkeypatch.delenv(fast_cpu.MARK, raising=False)
  return calls


def test_a_process_is_restarted_once_and_keeps_the_users_settings(
  restarted, monkeypatch
):
  old_flags = '--xla_force_host_platform_device_count=2'
  monkeypatch.setenv('XLA_FLAGS', old_flags)
  with pytest.raises(Restarted):
    fast_cpu.restart(['--config=a.py'])
  ((path, command, environment),) = restarted
  assert path == sys.executable
  assert command[1:] == ['-m', 'jaxdistill.main', '--config=a.py']
  assert environment['XLA_FLAGS'] == f'{old_flags} {fast_cpu.FLAGS}'
  assert environment['GLIBC_TUNABLES'].endswith(fast_cpu.TUNABLES)
  monkeypatch.setenv(fast_cpu.MARK, environment[fast_cpu.MARK])
  fast_cpu.restart(['--config=a.py'])
  assert len(restarted) == 1


def test_flags_that_xla_does_not_know_do_not_prevent_the_start(
  restarted, monkeypatch, capfd
):
  monkeypatch.setattr(fast_cpu, 'FLAGS', '--xla_no_such_flag=1')
  fast_cpu.restart([])
  assert not restarted
  message = capfd.readouterr().err
  assert message.count('\n') == 1
  assert '--fast_cpu' in message


def test_pytest_is_never_restarted(monkeypatch):
  monkeypatch.delenv(fast_cpu.MARK, raising=False)
  monkeypatch.setattr(subprocess, 'run', None)
  fast_cpu.restart([])
