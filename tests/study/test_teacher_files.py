"""Teachers from files: of an earlier run, or of PyTorch tensors."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxdistill import networks, study
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.networks.weights import files, pretrained
from jaxdistill.study import config as config_lib
from jaxdistill.study import drafts, workdir
from jaxdistill.study.distilling import teachers

HUB = pathlib.Path(__file__).parents[1] / 'networks/hub_fixtures'
SMALL = {'name': 'resnet8', 'stem_width': 2, 'widths': (2, 2, 4)}


@pytest.fixture(scope='module')
def model():
  arguments = {k: v for k, v in SMALL.items() if k != 'name'}
  network = networks.NETWORKS['resnet8'](num_classes=10, **arguments)
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  return Model(network, networks.init(network, jax.random.key(0), image))


def _config(path, **teacher):
  return {
    'data': {'name': 'digits'},
    'student': SMALL,
    'teacher': {**teacher, 'weights': str(path)},
    'method': {'name': 'kd'},
  }


def test_another_run_can_point_at_the_teacher(
  cli, workdirs, config, finished, tmp_path
):
  teacher = shutil.copytree(finished[0], tmp_path / 'one')
  workdir = tmp_path / 'workdir'

  def pointing_at(path):
    override = f'--config.teacher={{"checkpoint": "{path}"}}'
    return f'{config}:kd', workdir, override

  _, err = cli.fit(*pointing_at(teacher))
  accuracy = 100 * workdirs.result(teacher, 'teacher')['test']['last']['top1']
  assert f'teacher from a file: top1 {accuracy:.2f}% on test' in err
  assert [p.name for p in (workdir / 'rows').iterdir()] == ['kd']
  # The same teacher leads to the same student.
  student, original_student = (
    files.load_tree(w / 'rows/kd/0/phase0.safetensors')[0]['student']
    for w in (workdir, finished[0])
  )
  jax.tree.map(np.testing.assert_array_equal, student, original_student)
  # The file may be moved, but not replaced by another.
  moved = teacher.rename(tmp_path / 'two')
  cli.fit(*pointing_at(moved / 'teacher.safetensors'))
  cli.fit(*pointing_at(moved), '--mode=export')
  other = workdir / 'export/kd-0-last.safetensors'
  assert 'teacher.checksum' in cli.refused(*pointing_at(other))


def test_a_teacher_file_that_does_not_fit_is_refused(
  cli, config, finished, tmp_path
):
  line = cli.refused(
    config,
    tmp_path / 'workdir',
    f'--config.teacher.checkpoint={finished[0]}',
    '--config.teacher.name=network_for_tests:net',
    '--config.teacher.width=4',
  )
  assert 'teacher.safetensors' in line
  assert 'stem' in line
  assert not (tmp_path / 'workdir').exists()


def test_the_teacher_has_the_weights_of_the_file(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  safetensors.numpy.save_file(pretrained.to_torch(model), path)
  plan = study.plan(_config(path, **SMALL))
  assert plan.teacher is not None and plan.teacher.network == model.network
  jax.tree.map(
    np.testing.assert_array_equal, plan.teacher.variables, model.variables
  )
  assert [row.label for row in plan.rows] == ['kd']  # nothing to train first


def test_weights_of_another_network_are_refused(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  safetensors.numpy.save_file(pretrained.to_torch(model), path)
  with pytest.raises(UsageError, match=r"lacks tensor 'layer1\.1\."):
    study.plan(_config(path, **{**SMALL, 'name': 'resnet14'}))


def test_weights_need_the_networks_name_and_a_file(tmp_path):
  with pytest.raises(UsageError, match=r'teacher\.weights: no file'):
    study.plan(_config(tmp_path / 'x.pth', **SMALL))
  (tmp_path / 'x.pth').write_bytes(b'')
  with pytest.raises(UsageError, match='teacher: expected a section'):
    study.plan(_config(tmp_path / 'x.pth'))


def test_a_row_holds_the_key_of_the_teachers_file(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  safetensors.numpy.save_file(pretrained.to_torch(model), path)
  (row,) = study.plan(_config(path, **SMALL)).rows
  teacher = row.resolved['teacher']
  assert teacher['weights'] == str(path) and 'checkpoint' not in teacher
  networks.save(path, model)
  config = _config(path)
  config['teacher'] = {'checkpoint': str(path)}
  (row,) = study.plan(config).rows
  teacher = row.resolved['teacher']
  assert teacher['checkpoint'] == str(path) and 'weights' not in teacher


def test_weights_and_a_checkpoint_exclude_each_other(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  networks.save(path, model)
  with pytest.raises(
    UsageError, match='expected weights or checkpoint, got both'
  ):
    study.plan(_config(path, **SMALL, checkpoint=str(path)))


def test_a_row_of_an_earlier_run_can_teach_in_one_call(finished, tmp_path):
  workdir = finished[0]
  teacher = teachers.chosen(f'{workdir}:kd', (8, 8, 1), tmp_path)
  assert teacher.outputs == 3 and "row 'kd'" in teacher.title
  ((name, content),) = teacher.files.items()
  (tmp_path / name).write_bytes(content)
  model = files.load(tmp_path / name)
  plan = study.plan(config_lib.load(str(workdir / 'config.py')))
  row = plan.rows[-1]
  trained = study.trained(plan, row, 0, workdir)['last']
  assert row.label == 'kd' and model.network == trained.network
  jax.tree.map(
    np.testing.assert_array_equal, *(m.variables for m in (model, trained))
  )
  with pytest.raises(UsageError, match="did you mean 'kd'"):
    teachers.chosen(f'{workdir}:kdd', (8, 8, 1), tmp_path)


def test_a_teacher_goes_on_from_weights_of_other_classes(model, tmp_path):
  """All stages but the head begin with the weights of the file."""
  path = tmp_path / 'ten.safetensors'
  more_classes = model.network.stages[-1].module.clone(num_classes=7)
  head = model.network.stages[-1]._replace(module=more_classes)
  other = model.network._replace(stages=(*model.network.stages[:-1], head))
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  trained = Model(other, networks.init(other, jax.random.key(1), image))
  networks.save(path, trained)
  initial = {'name': 'pretrained', 'path': str(path)}
  config = {**_config(path), 'teacher': {**SMALL, 'initial': initial}}
  plan = study.plan(config)
  assert [row.label for row in plan.rows] == ['teacher', 'kd']
  params = study.initial_model(plan, 'teacher', 0).variables['params']
  (note,) = plan.notes
  stages = len(params)
  assert note == (
    f'teacher: {stages - 1} of {stages} stages begin with the weights of '
    f'{path}; these are new: head'
  )
  old = trained.variables['params']
  for stage in ('stem', 'group1.block1', 'group3.block1'):
    jax.tree.map(np.testing.assert_array_equal, params[stage], old[stage])
  assert {x.shape[-1] for x in jax.tree.leaves(params['head'])} == {10}
  recorded = plan.rows[1].resolved['teacher']['initial']
  # Another file under the same name is another teacher.
  ones = jax.tree.map(np.ones_like, trained.variables)
  networks.save(path, trained._replace(variables=ones))
  assert study.plan(config).rows[1].resolved['teacher']['initial'] != recorded


def test_weights_of_another_network_to_go_on_from_are_refused(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  networks.save(path, model)
  initial = {'name': 'pretrained', 'path': str(path)}
  config = {
    **_config(path),
    'teacher': {**SMALL, 'stem_width': 3, 'widths': (3, 3, 3)},
  }
  for role, changes in (
    ('teacher', {'teacher': {**config['teacher'], 'initial': initial}}),
    ('student', {'student': config['teacher'], 'initial': initial}),
  ):
    with pytest.raises(UsageError, match=f'^{role}: initial.path: expected'):
      study.plan({**config, **changes})


def test_a_file_to_go_on_from_may_be_moved(model, tmp_path):
  resolved = []
  for name in ('one', 'two'):
    path = tmp_path / name
    networks.save(path, model)
    initial = {'name': 'pretrained', 'path': str(path)}
    teacher = {**SMALL, 'initial': initial}
    row = study.plan({**_config(path), 'teacher': teacher}).rows[-1]
    resolved.append(workdir.without_places(row.resolved))
  assert resolved[0] == resolved[1]
  assert resolved[0]['teacher.initial.checksum']


def test_the_description_of_a_folder_is_a_part_of_the_teacher(tmp_path):
  folder = tmp_path / 'folder'
  shutil.copytree(HUB / 'dinov2_classifier', folder)
  file = folder / 'model.safetensors'
  checksums = []
  for name in ('', 'config.json', 'preprocessor_config.json'):
    if name:
      with (folder / name).open('a') as description:
        description.write(' ')
    draft = drafts.TeacherDraft(None, file, True, None, folder)
    checksums.append(draft.resolved['checksum'])
  assert len({*checksums}) == 3


def test_weights_to_go_on_from_need_a_training(model, tmp_path):
  path = tmp_path / 'teacher.safetensors'
  networks.save(path, model)
  initial = {'name': 'pretrained', 'path': str(path)}
  config = {
    **_config(path),
    'teacher': {'checkpoint': str(path), 'initial': initial},
  }
  with pytest.raises(UsageError, match=r'teacher\.initial: expected a teacher'):
    study.plan(config)
