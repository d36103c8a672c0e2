"""The command line: what it refuses, what it keeps, what it runs again."""

import ast
import contextlib
import io
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import sys
import types

import jax
import ml_collections
import numpy as np
import pytest

from jaxdistill import (
  evaluation,
  experiment,
  export,
  fast_cpu,
  main,
  networks,
  study,
)
from jaxdistill.data import arrays as arrays_lib
from jaxdistill.data import images
from jaxdistill.networks import files
from jaxdistill.study import exporting
from jaxdistill.study import workdir as workdir_lib
from jaxdistill.types import UsageError

CONFIG = """
import ml_collections


def get_config(rows='student alone,kd'):
  config = ml_collections.ConfigDict()
  config.data = {{'name': 'npz', 'path': {path!r}, 'validation': 16}}
  tiny = {{'name': {network!r}}}
  config.teacher = {{**tiny, 'training': {{'epochs': 1}}}}
  config.student = tiny
  config.optimizer = {{'name': 'sgd'}}
  config.schedule = {{'name': 'cosine', 'rate': 0.1}}
  config.batch_size = 16
  config.epochs = 2
  config.log_every = 1
  methods = {{
    'student alone': {{'name': 'supervised'}},
    'kd': {{'name': 'kd', 'temperature': 2.0}},
    'late': {{'name': 'kd', 'temperature': 3.0}},
  }}
  config.methods = ml_collections.ConfigDict(
    {{k: methods[k] for k in rows.split(',') if k in methods}}, sort_keys=False
  )
  if rows == 'one':
    del config.methods
    config.method = methods['kd']
  return config
"""
NETWORK = """
import pathlib

from jaxdistill.methods import joint
from jaxdistill.networks import layers
from jaxdistill.types import Network, Stage


def net(*, num_classes: int, width: int = 2) -> Network:
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


def from_file(recipe, *, temperature: str):
  file = pathlib.Path(temperature).expanduser()
  return joint.kd(recipe, temperature=float(file.read_text()))
"""
ALONE = {'method': {'name': 'supervised'}}


def arrays(**changes):
  """3 classes, 64 training and 30 test images of noise, but for `changes`."""
  rng = np.random.default_rng(0)
  return {
    'train_image': rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8),
    'train_label': np.arange(64) % 3,
    'test_image': rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8),
    'test_label': np.arange(30) % 3,
    **changes,
  }


def call(*arguments):
  """(exit code, stdout, stderr) of the command line."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = main.run([str(a) for a in arguments])
  return code, out.getvalue(), err.getvalue()


def fit(config, workdir, *arguments):
  """(stdout, stderr) of a run that must succeed."""
  code, out, err = call(
    f'--config={config}', f'--workdir={workdir}', *arguments
  )
  assert code == 0, err
  return out, err


def refused(config, workdir, *arguments, code=2):
  """The one line with which the command line refuses."""
  got, out, err = call(f'--config={config}', f'--workdir={workdir}', *arguments)
  assert got == code, err
  assert out == ''
  *notes, line = err.splitlines()
  assert line.startswith('jaxdistill: ')
  assert all('dropped the keys' in note for note in notes)
  assert 'Traceback' not in err
  return line


def contents(folder):
  """Path -> bytes and time of the last write, of every file but the lock."""
  return {
    str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
    for p in pathlib.Path(folder).rglob('*')
    if p.is_file() and p.name != 'lock'
  }


def trained_files(folder):
  """What only training writes."""
  return {
    k: v
    for k, v in contents(folder).items()
    if k.endswith(('phase0.safetensors', 'result.json', 'metrics.jsonl'))
    and not k.startswith('results')
  }


def results(workdir):
  return json.loads((workdir / 'results.json').read_text())


def row(workdir, label, seed=0):
  found = {r['label']: r for r in results(workdir)['rows']}
  return found[label]['seeds'][str(seed)]


@pytest.fixture(scope='session')
def place(tmp_path_factory):
  """A folder with data and configs of a tiny network and of resnet8."""
  folder = tmp_path_factory.mktemp('place')
  np.savez(folder / 'data.npz', **arrays())
  (folder / 'network_for_tests.py').write_text(NETWORK)
  for name, network in (
    ('tiny', 'network_for_tests:net'),
    ('resnet', 'resnet8'),
  ):
    text = CONFIG.format(path=str(folder / 'data.npz'), network=network)
    (folder / f'{name}.py').write_text(text)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield folder


@pytest.fixture(scope='session')
def config(place):
  """What compiles in no time."""
  return place / 'tiny.py'


@pytest.fixture(scope='session')
def resnet(place):
  """The same with resnet8, to be refused before anything is compiled."""
  return place / 'resnet.py'


@pytest.fixture(scope='session')
def finished(config, tmp_path_factory):
  """(work directory, stdout, stderr) of a finished run; not to be changed."""
  workdir = tmp_path_factory.mktemp('finished') / 'workdir'
  return workdir, *fit(config, workdir)


@pytest.fixture
def copied(finished, tmp_path):
  """A copy of the finished work directory."""
  return shutil.copytree(finished[0], tmp_path / 'copied')


# Arguments, and what the refusal must contain: the value and a valid one.
REFUSALS = {
  'key': (['foo=1'], ["'foo'", 'batch_size']),
  'near key of the recipe': (
    ['methods.kd.epoch=1'],
    ["'epoch'", "nearest: 'epochs'", 'methods.kd'],
  ),
  'near key': (['batch_siz=3'], ["'batch_siz'", "nearest: 'batch_size'"]),
  'key of a section': (['schedule.rat=1'], ["'rat'", "nearest: 'rate'"]),
  'key of a method': (
    ['methods.kd.temprature=1'],
    ["'temprature'", "nearest: 'temperature'", 'methods.kd'],
  ),
  'key of training': (
    ['teacher.training.epoch=1'],
    ["'epoch'", "nearest: 'epochs'"],
  ),
  'key inside a number': (['epochs.x=1'], ["'epochs'", 'no section']),
  'network': (['student.name=resnet9'], ["'resnet9'", "nearest: 'resnet8'"]),
  'network of the teacher': (
    ['teacher.name=resnet9'],
    ['teacher.name', "'resnet9'", "nearest: 'resnet8'"],
  ),
  'data set': (['data.name=npy'], ["'npy'", "nearest: 'npz'"]),
  'method': (['methods.kd.name=kdd'], ["'kdd'", "nearest: 'kd'"]),
  'optimizer': (['optimizer.name=sdg'], ["'sdg'", "nearest: 'sgd'"]),
  'schedule': (['schedule.name=cosin'], ["'cosin'", "nearest: 'cosine'"]),
  'augmentation': (['augment.name=crop'], ["'crop'", 'crop_flip']),
  'padding': (
    ['augment={"name":"crop_flip","padding":-1}'],
    ['augment.padding', '-1'],
  ),
  'task': (['task.name=x'], ["'x'", 'classification']),
  'role': (['methods.kd.teacher=nobody'], ["'nobody'", 'student']),
  'name of another type': (['student.name=8'], ['student.name', '8']),
  'subset': (['subset=tra'], ["'tra'", "nearest: 'train'"]),
  'section of text': (['student=resnet8'], ["'resnet8'", "{'name': ...}"]),
  'row of text': (['methods.kd=kd'], ['methods.kd: wanted', "'kd'"]),
  'training of a number': (['teacher.training=3'], ['teacher.training', '3']),
  'data file': (['data.path=/no/such.npz'], ['data.path', '/no/such.npz']),
  'data folder': (['data.path=/'], ['data.path', "'/'"]),
  'data of text': ([f'data.path={__file__}'], ['data.path', 'no .npz']),
  'checkpoint': (
    ['teacher.checkpoint=/no/such'],
    ['teacher.checkpoint', "'/no/such'"],
  ),
  'checkpoint of text': (
    [f'teacher.checkpoint={__file__}'],
    [__file__, 'safetensors'],
  ),
  'class counts': (['teacher.num_classes=5'], ['(3,)', '(5,)', 'classes']),
  'labels': (['data.num_classes=2'], ['0 to 2', '0 to 1']),
  'batch': (['batch_size=49'], ['batch_size is 49', 'choose 1 to 48']),
  'batch of a row': (
    ['methods.kd.batch_size=2.5'],
    ['methods.kd.batch_size', '2.5', 'int'],
  ),
  'no batch': (['batch_size=0'], ['batch_size', '0', 'above 0']),
  'validation': (['data.validation=64'], ['data.validation', '64']),
  'validation of a float': (['data.validation=2.0'], ['2.0', 'whole number']),
  'few': (['data.few=49'], ['data.few', '49', '48']),
  'epochs': (['epochs=-1'], ['epochs: -1', 'above 0']),
  'endless': (['epochs=1e999'], ['epochs: inf', 'above 0']),
  'words for epochs': (['epochs=many'], ["epochs: 'many'", 'float']),
  'logging': (['log_every=0'], ['log_every: 0', 'above 0']),
  'evaluation': (['evaluate_every=0'], ['evaluate_every: 0', 'above 0']),
  'rate': (['schedule.rate=0'], ['schedule.rate: 0', 'above 0']),
  'momentum': (['optimizer.momentum=2'], ['optimizer.momentum: 2', '[0, 1)']),
  'decay': (
    ['optimizer={"name":"adamw","b2":1.0}'],
    ['optimizer.b2: 1.0', '[0, 1)'],
  ),
  'clip': (['optimizer.clip=-1'], ['optimizer.clip: -1', 'above 0']),
  'no clip': (['optimizer.clip=0'], ['optimizer.clip: 0', 'None']),
  'weight decay': (['optimizer.weight_decay=-1'], ['weight_decay: -1', '0']),
  'smoothing': (
    ['task.label_smoothing=2'],
    ['task.label_smoothing: 2', '[0, 1)'],
  ),
  'temperature': (
    ['methods.kd.temperature=-4'],
    ['kd: temperature is -4', 'greater than 0'],
  ),
  'steps': (['steps_per_call=0'], ['steps_per_call: 0', 'above 0']),
  'workers': (['workers=-1'], ['workers: -1', '0']),
  'seconds': (['checkpoint_seconds=-1'], ['checkpoint_seconds: -1']),
  'warmup': (['schedule.warmup=5'], ['schedule.warmup: 5', '[0, 1)']),
  'no seeds': (['seeds=0'], ['seeds: 0', 'count or list']),
  'equal seeds': (['seeds=(1,1)'], ['seeds: (1, 1)', 'different']),
  'negative seeds': (['seeds=[-1]'], ['seeds: [-1]', 'from 0']),
  'broken seeds': (['seeds=[0.5]'], ['seeds: [0.5]', 'count or list']),
  'seed of the teacher': (
    ['teacher.training.seed=-1'],
    ['teacher.training.seed', '-1', 'from 0'],
  ),
  'too few widths': (['student.widths=(2,2)'], ['student', 'network']),
  'empty widths': (['student.widths=(2,2,0)'], ['student', 'network']),
  'dtype': (['student.dtype=float31'], ['student', "'float31'"]),
  'two methods': (["method={'name':'kd'}"], ["'method'", "'methods'"]),
  'no rows': (['methods={}'], ['methods', 'at least one']),
  'equal labels': (
    ["methods={'a/b':{'name':'kd'},'a b':{'name':'kd'}}"],
    ["'a/b'", "'a b'"],
  ),
  'label of the teacher': (
    ["methods={'teacher':{'name':'kd'}}"],
    ["'teacher'", 'another label'],
  ),
  'empty label': (["methods={'/':{'name':'kd'}}"], ["'/'", 'label']),
  'no value': (['epochs'], ['--config.epochs', '--config.KEY=VALUE']),
}


@pytest.mark.parametrize('case', REFUSALS)
def test_a_wrong_choice_is_refused_in_one_line(resnet, tmp_path, case):
  overrides, words = REFUSALS[case]
  line = refused(
    resnet, tmp_path / 'workdir', *(f'--config.{o}' for o in overrides)
  )
  for word in words:
    assert word in line
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'case',
  [
    *('padding', 'validation of a float', 'rate', 'warmup', 'momentum'),
    *('smoothing', 'workers', 'too few widths', 'epochs', 'seconds'),
  ],
)
def test_what_is_wrong_whatever_the_data_is_refused_before_they_are_read(
  resnet, tmp_path, case, monkeypatch
):
  def read(*arguments, **options):
    raise AssertionError('the data are read')

  monkeypatch.setattr(np, 'load', read)
  test_a_wrong_choice_is_refused_in_one_line(resnet, tmp_path, case)


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
      ['--config=HERE', '--format=onnx'],
      ["'onnx'", 'safetensors, stablehlo'],
    ),
    (['--config=HERE', '--model_parallel=2'], ['model_parallel is 2', '1']),
    (['--config=HERE', '--format=stablehlo'], ['--format', "'fit'"]),
  ],
)
def test_wrong_arguments_are_refused_in_one_line(config, arguments, words):
  code, _, err = call(*(a.replace('HERE', str(config)) for a in arguments))
  assert code == 2
  assert len(err.splitlines()) == 1
  for word in words:
    assert word in err


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('', ["no function 'get_config'"]),
    ('get_config = 3', ["no function 'get_config'"]),
    ('def get_config(:', ['SyntaxError', 'line 1']),
    ('def get_config():\n  return 1 / 0', ['line 2', 'ZeroDivisionError']),
    ('import no_such_module', ['line 1', "'no_such_module'"]),
    ('def get_config():\n  return {}', ["'data'"]),
    ('def get_config(x):\n  return {}', ['get_config', "'x'"]),
    (
      'from ml_collections import config_dict\n'
      'def get_config():\n'
      "  return {'data': {'name': config_dict.required_placeholder(str)}}",
      ['--config.data.name=VALUE'],
    ),
  ],
)
def test_a_broken_config_file_is_refused_in_one_line(tmp_path, text, words):
  file = tmp_path / 'broken.py'
  file.write_text(text)
  line = refused(file, tmp_path / 'workdir')
  for word in words:
    assert word in line
  assert not (tmp_path / 'workdir').exists()


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'train_label': np.arange(64) % 3 - 1}, ['-1 to 1', '0 to 2']),
    ({'train_label': np.zeros(64)}, ['train_label', 'float64', 'integers']),
    ({'train_image': np.zeros((64, 8, 8, 1))}, ['train_image', 'uint8']),
    ({'test_image': np.zeros((30, 9, 9, 1), np.uint8)}, ['(9, 9, 1)']),
    ({'test_image': np.zeros((30, 8, 8, 3), np.uint8)}, ['(8, 8, 3)']),
    (
      {
        'test_image': np.zeros((0, 8, 8, 1), np.uint8),
        'test_label': np.zeros(0, np.int32),
      },
      ['0 test examples'],
    ),
  ],
)
def test_unfit_data_are_refused_in_one_line(config, tmp_path, changes, words):
  np.savez(tmp_path / 'odd.npz', **arrays(**changes))
  line = refused(
    config, tmp_path / 'workdir', f'--config.data.path={tmp_path}/odd.npz'
  )
  for word in words:
    assert word in line
  assert not (tmp_path / 'workdir').exists()


class _Trap:
  """Leaves a file behind when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_pickled_data_are_refused_and_never_unpickled(config, tmp_path):
  trap = np.array([_Trap(tmp_path / 'sprung')] * 64, object)
  np.savez(tmp_path / 'trap.npz', **arrays(train_label=trap))
  line = refused(
    config, tmp_path / 'workdir', f'--config.data.path={tmp_path}/trap.npz'
  )
  assert 'trap.npz' in line
  assert not (tmp_path / 'sprung').exists()
  pickle.loads(pickle.dumps(trap[0]))  # the trap does work
  assert (tmp_path / 'sprung').exists()


def test_nothing_in_the_library_unpickles():
  loads = 0
  for path in pathlib.Path(main.__file__).parent.rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if not isinstance(node, ast.Call):
        continue
      call = ast.unparse(node.func)
      assert call not in ('pickle.load', 'pickle.loads', 'torch.load'), path
      if call == 'np.load':
        assert 'allow_pickle=False' in ast.unparse(node), path
        loads += 1
  assert loads


def test_a_directory_that_cannot_be_written_is_refused(config, tmp_path):
  (tmp_path / 'file').write_text('kept')
  for workdir in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    line = refused(config, workdir)
    assert 'cannot write' in line
    assert str(workdir) in line
  assert (tmp_path / 'file').read_text() == 'kept'


@pytest.mark.parametrize('mode', ['evaluate', 'export'])
def test_unfinished_rows_are_named(config, tmp_path, mode):
  line = refused(config, tmp_path / 'workdir', f'--mode={mode}')
  assert 'not finished' in line
  assert "'kd' seed 0" in line
  assert '--mode=fit' in line
  assert not (tmp_path / 'workdir').exists()


def test_a_row_is_trained_alone_and_shown_beside_what_is_there(config, copied):
  three = f'{config}:student alone,late,kd'
  shutil.rmtree(copied / 'rows/kd')
  before = trained_files(copied)
  out, _ = fit(three, copied, '--row=late')
  assert [r['label'] for r in results(copied)['rows']] == [
    *('teacher', 'student alone', 'late')
  ]
  assert out.count('| late') == 1
  after = trained_files(copied)
  assert after.keys() - before.keys() == {
    f'rows/late/0/{name}' for name in ('phase0.safetensors', 'result.json')
  }
  written = fit(three, copied, '--mode=export', '--row=late')[0].split()
  assert [pathlib.Path(path).name for path in written] == [
    'late-0-last.safetensors',
    'late-0-best.safetensors',
  ]
  line = refused(three, copied, '--row=lat')
  assert "'lat'" in line
  assert "nearest: 'late'" in line
  line = refused(three, copied, '--mode=export', '--row=teacher')
  assert "unknown row 'teacher'; valid: student alone, late, kd" in line


@pytest.mark.parametrize('lost', ['kd', 'teacher'])
def test_evaluation_of_a_row_needs_it_and_its_teacher(config, copied, lost):
  (copied / f'rows/{lost}/0/phase0.safetensors').unlink()
  before = contents(copied)
  line = refused(config, copied, '--mode=evaluate', '--row=kd')
  assert f'not finished: {lost!r} seed 0' in line
  assert contents(copied) == before


@pytest.mark.parametrize('mode', ['fit', 'evaluate', 'export'])
def test_a_row_alone_leaves_no_other_config_in_the_results(
  config, copied, mode
):
  before = contents(copied)
  arguments = f'--mode={mode}', '--row=kd'
  change = '--config.methods.student alone.batch_size=8'
  line = refused(config, copied, *arguments, change)
  assert 'batch_size (there 16, now 8)' in line
  assert contents(copied) == before


def loaded(config, *overrides):
  made = main.load_config(str(config))
  for override in overrides:
    main.override(made, *override.split('=', 1))
  return made


def test_a_row_depends_on_what_its_files_hold(config, tmp_path, monkeypatch):
  file = tmp_path / 'number.json'
  moved = tmp_path / 'moved.json'
  monkeypatch.setenv('HOME', str(tmp_path))
  made = loaded(config).to_dict()
  found = []
  for place, content in (
    (file, '2'),
    (file, '3'),
    (moved, '2'),
    ('~/moved.json', '2'),
  ):
    moved.write_text(content)
    file.write_text(content)
    method = {'name': 'network_for_tests:from_file', 'temperature': str(place)}
    plan = experiment.plan({**made, 'methods': {'row': method}})
    found.append(workdir_lib.without_places(plan.rows[-1].resolved))
  two, three, *moved = found
  assert moved == [two, two]
  (differing,) = {key for key in two if two[key] != three[key]}
  assert differing == 'checksums.method.temperature'


@pytest.mark.parametrize(
  ('override', 'value'),
  [
    ('epochs=3', 3),
    ('epochs=0.5', 0.5),  # it was an integer
    ('schedule.rate=1', 1),  # 500 instead of a share stays a count
    ('schedule.warmup=0.1', 0.1),  # the file does not mention it
    ('task.label_smoothing=0.1', 0.1),  # nor the section
    ('teacher.training.schedule.rate=0.2', 0.2),
    ('student.widths=(4,4,8)', (4, 4, 8)),
    ('student.shortcut=A', 'A'),
    ('optimizer.nesterov=false', False),
    ('optimizer.nesterov=True', True),
    ('student.inner_widths=none', None),
    ('methods.student alone.epochs=7', 7),
    ('data.path=a=b', 'a=b'),
  ],
)
def test_an_override_sets_any_key_to_a_python_value(config, override, value):
  made = loaded(config, override)
  for key in override.partition('=')[0].split('.'):
    made = made[key]
  assert made == value
  assert type(made) is type(value)


def test_a_new_name_drops_the_keys_of_the_old_one_and_says_so(config, capfd):
  made = loaded(config, 'methods.kd.name=supervised')
  assert made.methods.kd.to_dict() == {'name': 'supervised'}
  said = capfd.readouterr().err
  assert "methods.kd.name is now 'supervised'" in said
  assert "'kd': temperature" in said


def test_a_row_that_is_not_there_is_no_new_one(config):
  made = loaded(config)
  with made.unlocked():
    made.methods = {'kd': {'name': 'kd'}, 'at': {'name': 'at'}}
  message = r"unknown row of methods 'kdd' \(nearest: 'kd'\); valid: at, kd"
  with pytest.raises(UsageError, match=message):
    main.override(made, 'methods.kdd.weight', '2')
  main.override(made, 'methods.sp.name', 'sp')
  assert list(made.methods) == ['at', 'kd', 'sp']


def test_the_same_name_drops_nothing(config, capfd):
  made = loaded(config, 'methods.kd.name=kd')
  assert made.methods.kd.temperature == 2.0
  assert capfd.readouterr().err == ''


def test_a_new_name_keeps_the_overrides_before_it(config, tmp_path):
  line = refused(
    config,
    tmp_path / 'workdir',
    '--config.schedule.patience=long',
    '--config.schedule.name=plateau',
  )
  assert "schedule.patience: 'long' is no int" in line


def test_derived_numbers_follow_an_override(tmp_path):
  file = tmp_path / 'derived.py'
  file.write_text(
    'import ml_collections\n'
    'def get_config():\n'
    '  config = ml_collections.ConfigDict()\n'
    '  config.batch_size = 64\n'
    '  config.epochs = 4\n'
    "  config.schedule = {'rate': config.get_ref('batch_size') * 0.5}\n"
    "  config.late = {'epochs': config.get_ref('epochs') * 2}\n"
    '  return config\n'
  )
  made = loaded(file, 'batch_size=8', 'epochs=0.5')
  assert made.schedule.rate == 4.0
  assert made.late.epochs == 1.0


def test_a_config_file_gets_the_argument_behind_its_name(config):
  made = main.load_config(f'{config}:late,kd')
  assert list(made.methods) == ['late', 'kd']


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('def get_config():\n  return {}', "takes no argument: 'abc'"),
    (
      "ARGUMENTS = '0.5', '1'\ndef get_config(x=1):\n  return float(x)",
      "'abc'; arguments such as: 0.5, 1",
    ),
  ],
)
def test_a_wrong_argument_of_a_config_is_refused(tmp_path, text, words):
  file = tmp_path / 'mine.py'
  file.write_text(text)
  assert words in refused(f'{file}:abc', tmp_path / 'workdir')


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
  assert main.default_workdir(config) == workdir


def test_the_default_work_directory_is_used(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _, _, err = call(f'--config={config}', '--mode=export')
  assert "runs/tiny: not finished: 'student alone'" in err


def test_the_teacher_is_trained_and_its_accuracy_printed_first(finished):
  workdir, out, err = finished
  lines = err.splitlines()
  accuracy = 100 * row(workdir, 'teacher')['test']['last']['top1']
  teacher = lines.index(f'teacher: top1 {accuracy:.2f}% on test')
  assert [n for n, line in enumerate(lines) if 'kd' in line] == [teacher + 2]
  lines = [line for line in out.splitlines() if line.startswith('|')]
  labels = [line.split('|')[1].strip() for line in lines]
  assert labels[-3:] == ['teacher', 'student alone', 'kd']
  assert f'{accuracy:.2f}' in lines[-3]


def test_results_say_what_they_were_made_by(finished):
  made = results(finished[0])
  assert [r['label'] for r in made['rows']] == [
    'teacher',
    'student alone',
    'kd',
  ]
  kd = made['rows'][2]
  assert kd['config']['method']['temperature'] == 2.0
  assert kd['config']['optimizer']['momentum'] == 0.9  # a default
  assert list(kd['seeds']) == ['0']
  assert kd['seeds']['0']['steps'] == 6
  assert set(kd['seeds']['0']['test']) == {'last', 'best'}
  run = kd['seeds']['0']
  assert 0 < run['nonzero'] <= run['parameters']
  assert run['versions']['jax'] == jax.__version__
  assert run['device'].startswith('cpu')
  assert re.fullmatch(r'\d{4}-\d\d-\d\d', run['date'])


def test_a_finished_run_prints_its_table_again_and_trains_nothing(
  config, finished, copied
):
  before = trained_files(copied)
  out, _ = fit(config, copied)
  assert out == finished[1]
  assert trained_files(copied) == before
  assert len(before) == 7  # 3 rows, and metrics.jsonl


def test_a_directory_knows_the_config_and_overrides_it_was_made_by(
  config, finished, copied
):
  code, out, err = call(f'--workdir={copied}')
  assert code == 0, err
  shown = [line.split('|')[1] for line in out.splitlines()]
  assert shown == [line.split('|')[1] for line in finished[1].splitlines()]
  fit(config, copied, '--config.seeds=(0, 5)')
  before = trained_files(copied)
  code, out, err = call(f'--workdir={copied}', '--mode=export')
  assert code == 0, err
  assert 'kd-5-last.safetensors' in out
  assert trained_files(copied) == before


def test_an_added_seed_runs_on(config, finished, copied):
  before = trained_files(copied)
  out, _ = fit(config, copied, '--config.seeds=2')
  after = trained_files(copied)
  new = {k for k in after if k not in before}
  assert new == {
    f'rows/{name}/1/{file}'
    for name in ('student-alone', 'kd')
    for file in ('phase0.safetensors', 'result.json')
  }
  for key in before:
    if key != 'metrics.jsonl':
      assert after[key] == before[key]
  old_lines = before['metrics.jsonl'][0].splitlines()
  assert after['metrics.jsonl'][0].splitlines()[: len(old_lines)] == old_lines
  assert '±' in out
  first, second = (
    files.load_tree(copied / f'rows/kd/{s}/phase0.safetensors')[0]['student']
    for s in (0, 1)
  )
  kernels = [m['params']['head']['linear']['kernel'] for m in (first, second)]
  assert not np.array_equal(*kernels)


def test_an_added_method_runs_on(config, copied):
  before = trained_files(copied)
  out, _ = fit(f'{config}:student alone,late,kd', copied)
  after = trained_files(copied)
  assert {k for k in after if k not in before} == {
    'rows/late/0/phase0.safetensors',
    'rows/late/0/result.json',
  }
  place = [out.index(f'| {x} ') for x in ('student alone', 'late', 'kd')]
  assert place == sorted(place)


@pytest.mark.parametrize('mode', ['fit', 'evaluate', 'export'])
@pytest.mark.parametrize(
  ('override', 'words'),
  [
    ('epochs=3', ["'student alone'", 'epochs (there 2, now 3)']),
    ('methods.kd.temperature=9', ["'kd'", 'method.temperature', '2.0', '9']),
    ('student.width=4', ['student.width (there 2, now 4)']),
    ('teacher.training.epochs=2', ["'teacher'", 'there 1, now 2']),
    ('evaluate_every=2', ['evaluate_every (there 1, now 2)']),
  ],
)
def test_another_config_is_refused_by_the_keys_that_differ(
  config, finished, mode, override, words
):
  before = contents(finished[0])
  line = refused(config, finished[0], f'--mode={mode}', f'--config.{override}')
  for word in words:
    assert word in line
  assert str(finished[0]) in line
  assert contents(finished[0]) == before


def test_a_key_that_changes_no_row_that_is_there_is_accepted(config, copied):
  before = trained_files(copied)
  fit(
    f'{config}:student alone,kd',
    copied,
    '--config.log_every=2',
    '--config.checkpoint_seconds=5',
  )
  assert trained_files(copied) == before
  # A row that is not there may be anything.
  fit(f'{config}:student alone,late', copied, '--config.methods.late.epochs=1')
  assert {k: trained_files(copied)[k] for k in before if 'rows' in k} == {
    k: v for k, v in before.items() if 'rows' in k
  }


def test_another_run_can_point_at_the_teacher(config, finished, tmp_path):
  teacher = shutil.copytree(finished[0], tmp_path / 'one')
  workdir = tmp_path / 'workdir'

  def pointing_at(path):
    given = f'--config.teacher={{"checkpoint": "{path}"}}'
    return f'{config}:kd', workdir, given

  _, err = fit(*pointing_at(teacher))
  accuracy = 100 * row(teacher, 'teacher')['test']['last']['top1']
  assert f'teacher from a file: top1 {accuracy:.2f}% on test' in err
  assert [p.name for p in (workdir / 'rows').iterdir()] == ['kd']
  # The same teacher makes the same student.
  ours, theirs = (
    files.load_tree(w / 'rows/kd/0/phase0.safetensors')[0]['student']
    for w in (workdir, finished[0])
  )
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  # The file may be moved, but not exchanged.
  moved = teacher.rename(tmp_path / 'two')
  fit(*pointing_at(moved / 'teacher.safetensors'))
  fit(*pointing_at(moved), '--mode=export')
  other = workdir / 'export/kd-0-last.safetensors'
  assert 'teacher.checksum' in refused(*pointing_at(other))


def test_a_teacher_file_that_does_not_fit_is_refused(
  config, finished, tmp_path
):
  line = refused(
    config,
    tmp_path / 'workdir',
    f'--config.teacher.checkpoint={finished[0]}',
    '--config.teacher.name=network_for_tests:net',
    '--config.teacher.width=4',
  )
  assert 'teacher.checkpoint' in line
  assert 'stem' in line
  assert not (tmp_path / 'workdir').exists()


def test_evaluation_again_gives_the_numbers_of_the_fit(
  config, copied, monkeypatch
):
  """The teacher answers once for all rows."""
  asked = []
  predict = evaluation.predict

  def counted(*arguments, **options):
    asked.append(arguments)
    return predict(*arguments, **options)

  monkeypatch.setattr(evaluation, 'predict', counted)
  before = row(copied, 'kd')
  file = copied / 'rows/kd/0/result.json'
  spoilt = {**before, 'test': {'last': {'top1': 2.0}}, 'agreement': 2.0}
  file.write_text(json.dumps(spoilt))
  out, _ = fit(config, copied, '--mode=evaluate')
  assert json.loads(file.read_text()) == before
  assert row(copied, 'kd') == before
  assert '200.00' not in out
  rows = json.loads((copied / 'results.json').read_text())['rows']
  students = [r for r in rows if r['label'] != 'teacher']
  assert len(asked) == 1 + sum(len(r['seeds']) for r in students)


def test_an_export_opens_again_as_the_trained_student(
  config, finished, copied, dataset
):
  out, _ = fit(config, copied, '--mode=export')
  paths = [pathlib.Path(line) for line in out.splitlines()]
  assert [p.name for p in paths] == [
    f'{name}-0-{when}.safetensors'
    for name in ('student-alone', 'kd')
    for when in ('last', 'best')
  ]
  exported = networks.load(copied / 'export' / 'kd-0-last.safetensors')
  student = files.load_tree(copied / 'rows/kd/0/phase0.safetensors')[0]
  tiny = experiment.plan(main.load_config(str(config)).to_dict()).networks
  image = dataset.splits['test']['image'].astype(np.float32)
  np.testing.assert_array_equal(
    networks.apply(*exported, image),
    networks.apply(tiny['student'], student['student'], image),
  )
  assert 'teacher' not in student


def test_an_exported_program_answers_raw_images_as_the_student(config, copied):
  out, _ = fit(
    config, copied, '--mode=export', '--format=stablehlo,safetensors'
  )
  assert len(out.splitlines()) == 8
  path = copied / 'export' / 'kd-0-last'
  image = np.load(config.parent / 'data.npz')['test_image']
  model, about = files.load_tree(f'{path}.safetensors')
  mean, std = (np.float32(about[k]) for k in ('mean', 'std'))
  assert about['image_shape'] == [8, 8, 1]
  network = files.from_spec(about['network'])
  expected = networks.apply(network, model, (image - mean) / std)
  for batch_size in (1, 7, 30):
    np.testing.assert_allclose(
      export.load(f'{path}.stablehlo')(image[:batch_size]),
      expected[:batch_size],
      atol=1e-5,
    )
  said = json.loads(pathlib.Path(f'{path}.stablehlo.json').read_text())
  assert said['input'] == 'raw images, uint8 [B, 8, 8, 1]'
  assert said['output'] == '[B, 3] logits'
  assert said['platforms'] == ['cpu', 'cuda', 'tpu']
  assert (said['mean'], said['std']) == (about['mean'], about['std'])


def test_an_export_that_answers_otherwise_is_no_export(
  config, copied, monkeypatch
):
  def other(model, *arguments, **options):
    variables = jax.tree.map(lambda x: x + 0.1, model.variables)
    return export.to_stablehlo(
      model._replace(variables=variables), *arguments, **options
    )

  changed = types.SimpleNamespace(**{**vars(export), 'to_stablehlo': other})
  monkeypatch.setattr(exporting, 'export', changed)
  with pytest.raises(RuntimeError, match=r'stablehlo: its answers are not'):
    call(
      f'--config={config}',
      f'--workdir={copied}',
      '--mode=export',
      '--format=stablehlo',
    )


def test_a_lost_result_is_measured_again_without_training(config, copied):
  before = trained_files(copied)
  lost = copied / 'rows/kd/0/result.json'
  lost.unlink()
  fit(config, copied)
  after = trained_files(copied)
  key = 'rows/kd/0/result.json'
  assert after.pop(key)[0] == before.pop(key)[0]
  assert after == before


def test_a_method_that_trains_another_role_makes_no_result(config, tmp_path):
  workdir = tmp_path / 'workdir'
  arguments = [f'--config={config}:student alone', f'--workdir={workdir}']
  override = '--config.methods.student alone.student=teacher'
  code, _, err = call(*arguments, override)
  assert code == 2
  assert "row 'student alone': the method trains no 'student'" in err
  assert not (workdir / 'rows/student-alone/0/result.json').exists()


def test_a_lost_student_is_trained_again(config, copied):
  lost = copied / 'rows/kd/0/phase0.safetensors'
  before = files.load_tree(lost)[0]
  lost.unlink()
  out, err = fit(config, copied, '--mode=evaluate')
  assert err == "not finished: 'kd' seed 0\n"
  assert 'student alone' in out
  assert '| kd' not in out
  fit(config, copied)
  jax.tree.map(np.testing.assert_array_equal, files.load_tree(lost)[0], before)


@pytest.mark.parametrize(
  'file', ['rows/kd/0/phase0.safetensors', 'rows/kd/0/result.json']
)
def test_a_damaged_file_is_named(config, copied, file):
  (copied / file).write_text('{')
  assert file in refused(config, copied, '--mode=evaluate')


def test_a_directory_at_work_is_refused(config, copied):
  with workdir_lib.locked(copied):
    line = refused(config, copied)
  assert 'another run is at work' in line
  assert str(copied) in line
  fit(config, copied)


def test_one_method_without_validation_has_no_chosen_epoch(config, tmp_path):
  out, _ = fit(
    f'{config}:one',
    tmp_path / 'workdir',
    '--config.data.validation=0',
    '--config.epochs=1',
    '--config.teacher.training.batch_size=64',
  )
  teacher, student = (
    [cell.strip() for cell in line.split('|')[1:-1]]
    for line in out.splitlines()
    if line.startswith(('| teacher', '| kd'))
  )
  assert teacher[0:5:3] == ['teacher', '-']
  assert student[0:5:3] == ['kd', '-']
  assert float(student[2]) >= 0
  assert teacher[4] == '-'


MINE = """
import jax.numpy as jnp
import numpy as np

from jaxdistill import steps
from jaxdistill.data import arrays
from jaxdistill.networks import layers, staged
from jaxdistill.optimizers import Schedule
from jaxdistill.types import Dataset, Method, Network, Recipe, Stage


def net(*, num_classes: int, width: int = 2) -> Network:
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


def data(*, size: int = 48) -> Dataset:
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8)
  label = np.arange(size) % 3
  return arrays.from_arrays(image, label, image, label, validation=0)


def method(recipe: Recipe, *, power: float = 2.0, extra=None) -> Method:
  def phase(carry):
    student, teacher = carry['student'].network, carry['teacher'].network

    def loss_fn(variables, batches, rng, progress):
      image = batches['train']['image']
      ours, updates = staged.run(
        student, variables['student'], {'image': image}, train=True
      )
      theirs = staged.apply(teacher, variables['teacher'], image)
      loss = (jnp.abs(ours[staged.output(student)] - theirs) ** power).mean()
      return loss, ({'student': updates}, {})

    return steps.gradient_phase(
      'mine',
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks={'student': student, 'teacher': teacher},
      trainable={'student': None},
    )

  return (phase,)


def bomb(*, rate: float = 0.01, at: int = 4) -> Schedule:
  return Schedule(lambda n: lambda step: jnp.where(step < at, rate, 1e30))
"""


@pytest.fixture(scope='session')
def mine(tmp_path_factory):
  """A folder with a user's own file."""
  folder = tmp_path_factory.mktemp('mine')
  (folder / 'mine_for_tests.py').write_text(MINE)
  (folder / 'broken_for_tests.py').write_text('def f(:\n')
  return folder


@pytest.fixture
def beside_mine(mine, monkeypatch):
  monkeypatch.chdir(mine)
  monkeypatch.setattr(sys, 'path', list(sys.path))


def test_a_file_of_the_user_brings_network_data_and_method(
  config, tmp_path, beside_mine
):
  workdir = tmp_path / 'workdir'
  fit(
    f'{config}:one',
    workdir,
    '--config.student.name=mine_for_tests:net',
    '--config.student.width=3',
    '--config.data.name=mine_for_tests:data',
    '--config.method.name=mine_for_tests:method',
    '--config.method.power=1.5',
  )
  made = results(workdir)['rows'][1]
  assert made['label'] == 'mine_for_tests:method'
  assert made['config']['method']['power'] == 1.5
  assert made['config']['student']['width'] == 3
  assert made['config']['data']['size'] == 48
  assert made['seeds']['0']['steps'] == 6
  fit(
    f'{config}:one',
    workdir,
    '--mode=export',
    '--config.student.name=mine_for_tests:net',
    '--config.student.width=3',
    '--config.data.name=mine_for_tests:data',
    '--config.method.name=mine_for_tests:method',
    '--config.method.power=1.5',
  )
  exported = workdir / 'export/mine_for_tests-method-0-last.safetensors'
  kernel = networks.load(exported).variables['params']['stem']['conv']['kernel']
  assert kernel.shape == (3, 3, 1, 3)


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    (['student.name=no_such_file:net'], ["'no_such_file:net'"]),
    (['student.name=broken_for_tests:f'], ['SyntaxError', 'line 1']),
    (['student.name=mine_for_tests:nett'], ["'nett'", 'mine_for_tests']),
    (['student.name=:net'], ["':net'"]),
    (
      ['student.name=mine_for_tests:net', 'student.widht=3'],
      ["'widht'", "nearest: 'width'"],
    ),
    (
      ['methods.kd.name=mine_for_tests:method', 'methods.kd.extra={1,2}'],
      ['methods.kd.extra', '{1, 2}'],
    ),
  ],
)
def test_a_wrong_file_of_the_user_is_refused(
  config, tmp_path, beside_mine, overrides, words
):
  line = refused(
    config, tmp_path / 'workdir', *(f'--config.{o}' for o in overrides)
  )
  for word in words:
    assert word in line
  assert not (tmp_path / 'workdir').exists()


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(
  config, tmp_path, beside_mine
):
  workdir = tmp_path / 'workdir'
  arguments = [
    f'--config={config}:student alone',
    f'--workdir={workdir}',
    '--config.epochs=4',
    '--config.checkpoint_seconds=0',
    '--config.methods.student alone.schedule={"name":"mine_for_tests:bomb"}',
  ]
  code, out, err = call(*arguments)
  assert code == 1
  assert out == ''
  line = err.splitlines()[-1]
  found = re.search(
    r"not finite at step (\d+) of phase 'supervised'; "
    r'last good checkpoint of this phase: (\d+)$',
    line,
  )
  assert found, line
  step, last = map(int, found.groups())
  # The rate is 1e30 from the fifth step on.
  assert 4 <= last < step <= 6
  row_folder = workdir / 'rows/student-alone/0'
  kept = [int(p.name) for p in (row_folder / 'checkpoints0').glob('[0-9]*')]
  assert max(kept) == last
  assert not (row_folder / 'result.json').exists()
  again, _, err = call(*arguments)
  assert again == 1
  assert f'not finite at step {step} ' in err


def test_plans_name_only_what_they_check():
  with pytest.raises(ValueError, match="needs the key 'student'"):
    experiment.plan({'data': {'name': 'digits'}, **ALONE})


def test_a_method_on_the_command_line_stands_for_all_rows(capsys):
  config = ml_collections.ConfigDict(
    {'methods': {'a': {'name': 'kd'}, 'b': {'name': 'at'}}}
  )
  main.override(config, 'method.name', 'sp')
  main.override(config, 'method.weight', '2.0')
  assert config.to_dict() == {'method': {'name': 'sp', 'weight': 2.0}}
  assert "the rows 'a', 'b'" in capsys.readouterr().err


def test_a_run_begun_otherwise_on_the_cpu_says_which_argument_to_give(
  config, finished, copied, monkeypatch
):
  monkeypatch.setenv(fast_cpu.MARK, '1')
  line = refused(config, copied, '--config.seeds=2')
  assert 'begun without --fast_cpu: leave out --fast_cpu' in line
  for path in copied.glob('rows/*/row.json'):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, 'fast_cpu': True}))
  monkeypatch.delenv(fast_cpu.MARK)
  line = refused(config, copied, '--config.seeds=2')
  assert 'begun with --fast_cpu: give --fast_cpu, or choose' in line
  assert fit(config, copied, '--config.seeds=2', '--mode=export')[0]


def test_enlarged_images_are_said_to_be(config):
  plan = experiment.plan(loaded(config).to_dict())
  assert study._about_size(plan) == ''
  larger = {'name': 'imagenet', 'size': 9}
  plan = experiment.plan({**loaded(config).to_dict(), 'augment': larger})
  assert 'the images, 8 x 8, are enlarged to 9 x 9' in study._about_size(plan)


def test_statistics_of_a_part_of_the_images_are_said_to_be(config):
  plan = experiment.plan(loaded(config).to_dict())
  count = arrays_lib.SAMPLE + 1
  image = images.LazyImages(None, np.arange(count), (8, 8, 1))

  def said(image, **data):
    train = {'image': image, 'label': np.zeros(len(image), int)}
    row = plan.rows[0]._replace(resolved={'data': data})
    dataset = plan.dataset._replace(splits={'train': train})
    return study._about_statistics(plan._replace(dataset=dataset, rows=(row,)))

  assert 'the mean and std are those of 1,024 of 1,025 images' in said(image)
  assert 'the std are those' in said(image, mean=[1.0], std=None)
  assert said(image, mean=[1.0], std=[1.0]) == ''
  assert said(image.select(np.arange(1024))) == ''
  assert said(np.zeros((count, 8, 8, 1), np.uint8)) == ''


def test_a_second_signal_ends_at_once(monkeypatch, capfd):
  monkeypatch.setattr(os, '_exit', sys.exit)
  with main._signals() as came, pytest.raises(SystemExit) as ended:
    assert not came()
    signal.raise_signal(signal.SIGINT)
    assert came()
    assert 'stopping after this step' in capfd.readouterr().err
    signal.raise_signal(signal.SIGINT)
  assert ended.value.code == 130
  assert capfd.readouterr().err == 'jaxdistill: interrupted\n'


def test_an_interrupt_that_python_drops_ends_the_process(monkeypatch, capfd):
  class Raising:
    def __init__(self, error):
      self.error = error

    def __del__(self):
      raise self.error

  codes = []
  monkeypatch.setattr(os, '_exit', codes.append)
  monkeypatch.setattr(sys, 'unraisablehook', lambda dropped: None)
  with main._lost_interrupts():
    Raising(ValueError())
    assert codes == []
    Raising(KeyboardInterrupt())
  assert codes == [130]
  assert capfd.readouterr().err == 'jaxdistill: interrupted\n'
  Raising(KeyboardInterrupt())
  assert codes == [130]
