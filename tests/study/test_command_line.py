"""The command line: its arguments, exit codes and signals."""

import os
import signal
import subprocess
import sys

import pytest

import jaxdistill
from jaxdistill.study import arguments as arguments_lib
from jaxdistill.study import config as config_lib
from jaxdistill.training import signals


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ([], ['--config', '--workdir']),
    (['--workdir=nowhere'], ["no 'nowhere/config.py'", '--config=FILE.py']),
    (['--config=no.py'], ["'no.py'", 'no file']),
    (['--config=HERE', '--workdirs=x'], ['--workdirs=x']),
    (
      ['--config=HERE', '--mode=train'],
      ["'train'", "'fit'", "'evaluate'", "'export'"],
    ),
    (
      ['--config=HERE', '--format=torch'],
      ["'torch'", 'safetensors or stablehlo or onnx or tflite'],
    ),
    (['--config=HERE', '--int8=full'], ['--int8', "'fit'"]),
    (['export', 'HERE', '--int8=half'], ["'half'", "'weights'", "'full'"]),
    (['--config=HERE', '--model_parallel=2'], ['model_parallel:', 'got 2']),
    (['--config=HERE', '--format=stablehlo'], ['--format', "'fit'"]),
  ],
)
def test_wrong_arguments_are_refused_in_one_line(cli, config, arguments, words):
  code, _, err = cli.call(*(a.replace('HERE', str(config)) for a in arguments))
  assert code == 2
  assert len(err.splitlines()) == 1
  for word in words:
    assert word in err


@pytest.mark.parametrize(
  ('config', 'workdir'),
  [
    ('configs/quickstart.py', 'runs/quickstart'),
    ('configs/kd/cifar100.py', 'runs/kd/cifar100'),
    ('/home/me/jaxdistill/configs/kd/x.py', 'runs/kd/x'),
    ('/home/me/mine.py', 'runs/mine'),
    ('configs/kd/x.py:small', 'runs/kd/x-small'),
  ],
)
def test_the_default_work_directory_is_named_after_the_config(config, workdir):
  assert config_lib.default_workdir(config) == workdir


def test_the_default_work_directory_is_used(cli, config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _, _, err = cli.call(f'--config={config}', '--mode=export')
  assert "runs/tiny: not finished: 'student alone'" in err


def test_a_second_signal_ends_the_process_at_once(monkeypatch, capfd):
  monkeypatch.setattr(os, '_exit', sys.exit)
  with (
    signals.stop_requests() as interrupted,
    pytest.raises(SystemExit) as ended,
  ):
    assert not interrupted()
    signal.raise_signal(signal.SIGINT)
    assert interrupted()
    assert 'stopping after this step' in capfd.readouterr().err
    signal.raise_signal(signal.SIGINT)
  assert ended.value.code == 130
  assert capfd.readouterr().err == 'jaxdistill: interrupted\n'


def test_an_interrupt_that_python_cannot_raise_ends_the_process(
  monkeypatch, capfd
):
  class Raising:
    def __init__(self, error):
      self.error = error

    def __del__(self):
      raise self.error

  codes = []
  monkeypatch.setattr(os, '_exit', codes.append)
  monkeypatch.setattr(sys, 'unraisablehook', lambda unraisable: None)
  with signals.unraisable_interrupts():
    Raising(ValueError())
    assert codes == []
    Raising(KeyboardInterrupt())
  assert codes == [130]
  assert capfd.readouterr().err == 'jaxdistill: interrupted\n'
  Raising(KeyboardInterrupt())
  assert codes == [130]


@pytest.mark.parametrize(
  ('argument', 'text'),
  [
    ('--version', f'jaxdistill {jaxdistill.__version__}'),
    ('--help', '--model_parallel'),
  ],
)
def test_help_and_version_import_nothing_heavy(argument, text):
  program = (
    'import sys\n'
    'from jaxdistill import main\n'
    'try:\n'
    f'  main.run([{argument!r}])\n'
    'finally:\n'
    "  print('heavy:', sorted({'jax', 'flax', 'numpy'} & sys.modules.keys()))\n"
  )
  process = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=True
  )
  assert text in process.stdout
  assert 'heavy: []' in process.stdout


@pytest.mark.parametrize('key', ['epoch=1', 'epochs=-1', 'seeds=0'])
def test_a_wrong_key_or_number_is_refused_before_jax_is_imported(config, key):
  program = (
    'import sys\n'
    'from jaxdistill import main\n'
    f'code = main.run(["--config={config}", "--config.{key}"])\n'
    "print(code, 'jax' in sys.modules)\n"
  )
  process = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=True
  )
  assert process.stdout == '2 False\n'
  assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize(
  ('given', 'members'),
  [
    ([], None),
    (['--distributed'], (None, None, None)),
    (
      ['--coordinator=a:1', '--num_processes=2', '--process_id=1'],
      ('a:1', 2, 1),
    ),
  ],
)
def test_the_processes_of_a_cluster_are_read_from_the_arguments(given, members):
  options = arguments_lib.parse(given)
  assert arguments_lib.cluster(options) == members
