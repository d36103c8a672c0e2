"""The option that restarts the command line in a faster environment."""

import os
import subprocess
import sys
import warnings

import pytest

from jaxdistill.core import cpu
from jaxdistill.training import fast_cpu, program_cache


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
  for host in ('pytest', 'IPython'):
    monkeypatch.delitem(sys.modules, host, raising=False)
  monkeypatch.delenv(cpu.MARK, raising=False)
  return calls


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
  """A processor with one core, unless a test says otherwise."""
  monkeypatch.setattr(cpu, 'cores', lambda: 1)


@pytest.fixture
def trials(monkeypatch, tmp_path):
  """The environments that child processes try: mark -> exit code."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  tried = []
  codes = {'oneDNN': 0, 'XLA': 0}

  def run(command, *, env, **_):
    tried.append(env[cpu.MARK])
    code = codes[cpu.convolutions(env)]
    return subprocess.CompletedProcess(command, code)

  monkeypatch.setattr(subprocess, 'run', run)
  return tried, codes


def test_a_process_is_restarted_once_and_keeps_the_users_settings(
  restarted, trials, monkeypatch
):
  old_flags = '--xla_force_host_platform_device_count=2'
  monkeypatch.setenv('XLA_FLAGS', old_flags)
  with pytest.raises(Restarted):
    fast_cpu.restart(['--config=a.py'])
  ((path, command, environment),) = restarted
  assert path == sys.executable
  assert command[1:] == ['-m', 'jaxdistill.main', '--config=a.py']
  assert environment['XLA_FLAGS'].startswith(f'{old_flags} --xla_cpu_')
  assert environment['GLIBC_TUNABLES'].endswith(fast_cpu.TUNABLES)
  assert environment[cpu.MARK] == 'oneDNN'
  monkeypatch.setenv(cpu.MARK, environment[cpu.MARK])
  fast_cpu.restart(['--config=a.py'])
  assert len(restarted) == 1


def test_several_cores_appear_as_two_devices_with_enough_threads():
  one, two, many = (
    fast_cpu.environment({}, 'oneDNN', cores) for cores in (1, 2, 16)
  )
  count = '--xla_force_host_platform_device_count'
  assert count not in one['XLA_FLAGS']
  assert fast_cpu.THREADS not in one
  assert one[cpu.MARK] == 'oneDNN'
  for environment, threads in ((two, '4'), (many, '18')):
    assert environment['XLA_FLAGS'].endswith(f' {count}=2')
    assert environment[fast_cpu.THREADS] == threads
    assert environment[cpu.MARK] == 'oneDNN, 2 devices'
  assert fast_cpu.environment({}, 'XLA', 16)[cpu.MARK] == 'XLA'


@pytest.mark.parametrize(
  'old',
  [
    {'XLA_FLAGS': '--xla_force_host_platform_device_count=8'},
    {'JAX_NUM_CPU_DEVICES': '8'},
  ],
)
def test_the_users_number_of_devices_is_kept(old):
  new = fast_cpu.environment(old, 'oneDNN', 2)
  assert new[cpu.MARK] == 'oneDNN'
  assert 'device_count=2' not in new['XLA_FLAGS']
  threads = {fast_cpu.THREADS: '3'}
  assert fast_cpu.environment(threads, 'oneDNN', 2).items() >= threads.items()


def test_the_devices_are_made_for_a_process_that_trains_alone(
  restarted, trials, monkeypatch
):
  monkeypatch.setattr(cpu, 'cores', lambda: 4)
  for is_alone in (True, False):
    with pytest.raises(Restarted):
      fast_cpu.restart([], is_alone=is_alone)
  marks = [environment[cpu.MARK] for _, _, environment in restarted]
  assert marks == ['oneDNN, 2 devices', 'oneDNN']
  for mark, number in zip(marks, (2, 1)):
    monkeypatch.setenv(cpu.MARK, mark)
    assert cpu.convolutions() == 'oneDNN'
    assert cpu.devices() == number


@pytest.mark.parametrize('code', [1, -6, -11])
def test_convolutions_are_left_to_xla_where_the_trial_of_onednn_fails(
  restarted, trials, code
):
  tried, codes = trials
  codes['oneDNN'] = code
  for _ in range(2):
    with pytest.raises(Restarted):
      fast_cpu.restart([])
  assert [call[2][cpu.MARK] for call in restarted] == ['XLA', 'XLA']
  # A success is remembered, a failure is not.
  assert tried == ['oneDNN', 'XLA', 'oneDNN']


def test_a_successful_trial_is_repeated_only_with_other_settings(
  restarted, trials, monkeypatch
):
  tried, _ = trials
  for flags in ('', '', '--xla_a=1', '--xla_a=1', ''):
    monkeypatch.setenv('XLA_FLAGS', flags)
    with pytest.raises(Restarted):
      fast_cpu.restart([])
  assert tried == ['oneDNN'] * 2


def test_a_cache_that_cannot_be_written_does_not_prevent_the_start(
  restarted, trials, monkeypatch, tmp_path
):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  with pytest.raises(Restarted):
    fast_cpu.restart([])


def test_flags_that_xla_does_not_know_do_not_prevent_the_start(
  restarted, monkeypatch, capfd, tmp_path
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(fast_cpu, 'FUSIONS', {'XLA': 'NO_SUCH_FUSION'})
  fast_cpu.restart([])
  assert not restarted
  message = capfd.readouterr().err
  assert message.count('\n') == 1
  assert '--fast_cpu' in message


def test_pytest_is_never_restarted(monkeypatch):
  monkeypatch.delenv(cpu.MARK, raising=False)
  monkeypatch.setattr(subprocess, 'run', None)
  fast_cpu.restart([])


def test_programs_with_onednn_are_kept_away_from_the_cache_silently(
  monkeypatch,
):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'chosen')
  place = "Error writing persistent compilation cache entry for 'jit_step'"
  for mark, reason, is_shown in (
    ('', 'std::bad_alloc', True),
    ('XLA', 'std::bad_alloc', True),
    ('oneDNN', 'No space left on device', True),
    ('oneDNN', 'std::bad_alloc', False),
  ):
    monkeypatch.setenv(cpu.MARK, mark)
    with warnings.catch_warnings(record=True) as shown:
      warnings.simplefilter('always')
      program_cache.enable()
      warnings.warn(f'{place}: MemoryError: {reason}', stacklevel=1)
    assert bool(shown) == is_shown
