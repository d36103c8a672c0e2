"""Wrong choices are refused in one line, before anything is written."""

import ast
import pathlib
import pickle

import numpy as np
import pytest

import jaxdistill
from jaxdistill import study

# Overrides, and what the line must contain: the value and a valid one.
REFUSALS = {
  'key': (['foo=1'], ["'foo'", 'batch_size']),
  'near key of the recipe': (
    ['methods.kd.epoch=1'],
    ["'epoch'", "did you mean 'epochs'", 'methods.kd'],
  ),
  'near key': (['batch_siz=3'], ["'batch_siz'", "did you mean 'batch_size'"]),
  'key of a section': (['schedule.rat=1'], ["'rat'", "did you mean 'rate'"]),
  'key of a method': (
    ['methods.kd.temprature=1'],
    ["'temprature'", "did you mean 'temperature'", 'methods.kd'],
  ),
  'key of training': (
    ['teacher.training.epoch=1'],
    ["'epoch'", "did you mean 'epochs'"],
  ),
  'key inside a number': (['epochs.x=1'], ["'epochs'", 'not a section']),
  'network': (
    ['student.name=resnet9'],
    ["'resnet9'", "did you mean 'resnet8'"],
  ),
  'network of the teacher': (
    ['teacher.name=resnet9'],
    ['teacher.name', "'resnet9'", "did you mean 'resnet8'"],
  ),
  'data set': (['data.name=npy'], ["'npy'", "did you mean 'npz'"]),
  'method': (['methods.kd.name=kdd'], ["'kdd'", "did you mean 'kd'"]),
  'optimizer': (['optimizer.name=sdg'], ["'sdg'", "did you mean 'sgd'"]),
  'schedule': (['schedule.name=cosin'], ["'cosin'", "did you mean 'cosine'"]),
  'augmentation': (['augment.name=crop'], ["'crop'", 'crop_flip']),
  'padding': (
    ['augment={"name":"crop_flip","padding":-1}'],
    ['augment.padding', '-1'],
  ),
  'task': (['task.name=x'], ["'x'", 'classification']),
  'role': (['methods.kd.teacher=nobody'], ["'nobody'", 'student']),
  'teacher as another role': (
    ['teacher.training.method={"name":"supervised","student":"student"}'],
    ["teacher.training.student: expected 'teacher'"],
  ),
  'row that trains the teacher': (
    ['methods.kd.student=teacher', 'methods.kd.teacher=student'],
    ["methods.kd.student: expected 'student', the model of this row"],
  ),
  'one model in both roles': (
    ['methods.kd.teacher=student'],
    ['methods.kd: expected a teacher other', "'student' for both", "'kd'"],
  ),
  'peer that is the student': (
    ['methods.kd={"name":"dml","peer":"student"}'],
    ['methods.kd: expected a peer other', "'student' for both", "'dml'"],
  ),
  'teacher that learns from itself': (
    ['teacher.training.method={"name":"kd"}'],
    ['teacher.training', "'teacher' for both"],
  ),
  'labels that differ in case': (
    ["methods={'A':{'name':'kd'},'a':{'name':'supervised'}}"],
    ["the row 'a' would share its folder with 'A'"],
  ),
  'label of the teacher in upper case': (
    ["methods={'Teacher':{'name':'kd'}}"],
    ["the row 'Teacher' would share its folder with the teacher's"],
  ),
  'name of another type': (['student.name=8'], ['student.name', '8']),
  'subset': (['subset=tra'], ["'tra'", "did you mean 'train'"]),
  'section of text': (['student=resnet8'], ["'resnet8'", "{'name': ...}"]),
  'row of text': (['methods.kd=kd'], ['methods.kd: expected', "'kd'"]),
  'training of a number': (['teacher.training=3'], ['teacher.training', '3']),
  'data file': (['data.path=/no/such.npz'], ['data.path', '/no/such.npz']),
  'data folder': (['data.path=/'], ['data.path', "'/'"]),
  'data of text': (
    [f'data.path={__file__}'],
    ['data.path', 'expected a .npz file'],
  ),
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
  'network of another task': (
    ['student={"name":"embedded","network":{"name":"resnet8"}}'],
    ['student: classification: cannot read the outputs', "'embedding': (256,)"],
  ),
  'batch': (['batch_size=49'], ['batch_size', 'from 1 to 48', '49']),
  'batch of a row': (
    ['methods.kd.batch_size=2.5'],
    ['methods.kd.batch_size', '2.5', 'a whole number'],
  ),
  'empty batch': (['batch_size=0'], ['batch_size', '0', 'at least 1']),
  'validation': (['data.validation=64'], ['data.validation', '64']),
  'validation of a float': (['data.validation=2.0'], ['2.0', 'whole number']),
  'train_subset': (['data.train_subset=49'], ['data.train_subset', '49', '48']),
  'epochs': (['epochs=-1'], ['epochs', 'above 0', '-1']),
  'endless': (['epochs=1e999'], ['epochs: expected a number', 'inf']),
  'words for epochs': (['epochs=many'], ['epochs', "'many'", 'a number']),
  'logging': (['log_every=0'], ['log_every', 'at least 1', '0']),
  'evaluation': (['evaluate_every=0'], ['evaluate_every', 'at least 1', '0']),
  'rate': (['schedule.rate=0'], ['schedule.rate', '(0, 10000]', '0']),
  'momentum': (['optimizer.momentum=2'], ['optimizer.momentum', '[0, 1)', '2']),
  'decay': (
    ['optimizer={"name":"adamw","b2":1.0}'],
    ['optimizer.b2', '[0, 1)', '1.0'],
  ),
  'clip': (['optimizer.clip=-1'], ['optimizer.clip', 'above 0', '-1']),
  'no clip': (['optimizer.clip=0'], ['optimizer.clip', 'above 0', '0']),
  'weight decay': (
    ['optimizer.weight_decay=-1'],
    ['weight_decay', '[0, 1000]', '-1'],
  ),
  'smoothing': (
    ['task.label_smoothing=2'],
    ['task.label_smoothing', '[0, 1)', '2'],
  ),
  'temperature': (
    ['methods.kd.temperature=-4'],
    ['kd', 'temperature', '[0.001, 1e+06]', '-4'],
  ),
  'steps': (['steps_per_call=0'], ['steps_per_call', 'from 1 to', '0']),
  'workers': (['workers=-1'], ['workers', 'from 0 to', '-1']),
  'seconds': (
    ['checkpoint_seconds=-1'],
    ['checkpoint_seconds', 'at least 0', '-1'],
  ),
  'warmup': (['schedule.warmup=5'], ['schedule.warmup', '[0, 1)', '5']),
  'no seeds': (['seeds=0'], ['seeds: expected a count', 'got 0']),
  'equal seeds': (['seeds=(1,1)'], ['seeds', '(1, 1)', 'different']),
  'negative seeds': (['seeds=[-1]'], ['seeds', '[-1]', 'from 0']),
  'broken seeds': (['seeds=[0.5]'], ['seeds.0', '0.5', 'a whole number']),
  'seed of the teacher': (
    ['teacher.training.seed=-1'],
    ['teacher.training.seed', '-1', 'from 0'],
  ),
  'too few widths': (['student.widths=(2,2)'], ['student.widths', 'got 2']),
  'empty widths': (['student.widths=(2,2,0)'], ['student.widths', 'got 0']),
  'dtype': (['student.dtype=float31'], ['student', "'float31'"]),
  'maps': (
    [
      "student={'name':'fcn','network':{'name':'resnet8'}}",
      "methods={'alone':{'name':'supervised'}}",
    ],
    ['student: classification: cannot read the outputs (2, 2, 3)'],
  ),
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
def test_a_wrong_choice_is_refused_in_one_line(cli, resnet, tmp_path, case):
  overrides, words = REFUSALS[case]
  line = cli.refused(
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
def test_a_choice_that_no_data_can_mend_is_refused_before_data_are_read(
  cli, resnet, tmp_path, case, monkeypatch
):
  def read(*arguments, **options):
    raise AssertionError('the data were read')

  monkeypatch.setattr(np, 'load', read)
  test_a_wrong_choice_is_refused_in_one_line(cli, resnet, tmp_path, case)


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
def test_a_broken_config_file_is_refused_in_one_line(
  cli, tmp_path, text, words
):
  file = tmp_path / 'broken.py'
  file.write_text(text)
  line = cli.refused(file, tmp_path / 'workdir')
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
      ['test examples', '64 and 0'],
    ),
  ],
)
def test_invalid_data_are_refused_in_one_line(
  cli, arrays, config, tmp_path, changes, words
):
  np.savez(tmp_path / 'odd.npz', **arrays(**changes))
  line = cli.refused(
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


def test_pickled_data_are_refused_and_never_unpickled(
  cli, arrays, config, tmp_path
):
  trap = np.array([_Trap(tmp_path / 'sprung')] * 64, object)
  np.savez(tmp_path / 'trap.npz', **arrays(train_label=trap))
  line = cli.refused(
    config, tmp_path / 'workdir', f'--config.data.path={tmp_path}/trap.npz'
  )
  assert 'trap.npz' in line
  assert not (tmp_path / 'sprung').exists()
  pickle.loads(pickle.dumps(trap[0]))  # the trap works
  assert (tmp_path / 'sprung').exists()


def test_nothing_in_the_library_unpickles():
  num_loads = 0
  for path in pathlib.Path(jaxdistill.__file__).parent.rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if not isinstance(node, ast.Call):
        continue
      function = ast.unparse(node.func)
      assert function not in ('pickle.load', 'pickle.loads', 'torch.load'), path
      if function == 'np.load':
        assert 'allow_pickle=False' in ast.unparse(node), path
        num_loads += 1
  assert num_loads


def test_a_directory_that_cannot_be_written_is_refused(cli, config, tmp_path):
  (tmp_path / 'file').write_text('kept')
  for workdir in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    line = cli.refused(config, workdir)
    assert 'cannot write' in line
    assert str(workdir) in line
  assert (tmp_path / 'file').read_text() == 'kept'


def test_a_plan_without_a_student_is_refused():
  config = {'data': {'name': 'digits'}, 'method': {'name': 'supervised'}}
  with pytest.raises(ValueError, match="needs the key 'student'"):
    study.plan(config)
