"""Exported students, opened again as functions of raw images."""

import json
import shutil
import sys

import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.networks.weights import files
from jaxdistill.study import predictors, results
from jaxdistill.study.formats import table

PROGRAMS = ('stablehlo', 'onnx', 'tflite')


@pytest.fixture(scope='module')
def plan(cli, config):
  return study.plan(cli.load(config))


@pytest.fixture(scope='module')
def images(config):
  return np.load(config.parent / 'data.npz')['test_image']


@pytest.fixture(scope='module')
def workdir(cli, config, finished, tmp_path_factory):
  """A work directory with exported students of the row kd; never changed."""
  folder = tmp_path_factory.mktemp('exported') / 'workdir'
  shutil.copytree(finished[0], folder)
  cli.fit(
    config,
    folder,
    *('--mode=export', '--format=stablehlo,safetensors', '--row=kd'),
  )
  return folder


@pytest.fixture
def exported(workdir, tmp_path):
  """A copy of the folder of exported students."""
  return shutil.copytree(workdir / 'export', tmp_path / 'export')


@pytest.fixture(scope='module')
def student(plan, workdir):
  """The student of the work directory, with what it was trained for."""
  row = next(row for row in plan.rows if row.label == 'kd')
  return predictors.of_plan(
    plan, results.trained(plan, row, 0, workdir)['last']
  )


@pytest.mark.parametrize(
  'name', ['', 'export', 'export/kd-0-last.safetensors', 'kd-0-last.stablehlo']
)
def test_an_exported_student_predicts_as_the_trained_one(
  name, workdir, student, images
):
  folder = workdir / 'export' if name.startswith('kd') else workdir
  opened = jd.predictor(folder / name)
  assert opened.image_shape == (8, 8, 1)
  assert opened.task.name == 'classification'
  np.testing.assert_array_equal(opened(images), student(images))
  np.testing.assert_allclose(
    opened.outputs(images), student.outputs(images), atol=1e-5
  )
  np.testing.assert_allclose(
    opened.probabilities(images).sum(1), 1.0, rtol=1e-5
  )


def test_predictions_are_those_that_evaluation_counts(student, images, plan):
  test = plan.dataset.splits['test']
  scores = jd.evaluate(student.model, plan.dataset)
  correct = (student(images) == test['label']).mean()
  assert correct == pytest.approx(scores['top1'])


@pytest.mark.parametrize('kind', PROGRAMS[1:])
def test_files_of_other_runtimes_are_opened_too(
  kind, cli, config, copied, student, images
):
  packages = table.FORMATS[kind].packages
  for package in packages:
    pytest.importorskip(package)
  cli.fit(config, copied, '--mode=export', f'--format={kind}', '--row=kd')
  opened = jd.predictor(copied)
  assert opened.model is None
  np.testing.assert_array_equal(opened(images), student(images))


@pytest.mark.parametrize('kind', PROGRAMS[1:])
def test_a_missing_runtime_is_named_in_one_line(
  kind, exported, monkeypatch, images
):
  file = exported / f'kd-0-last.{kind}'
  file.write_bytes(b'a program')
  about = json.loads((exported / 'kd-0-last.stablehlo.json').read_text())
  del about['sha256']
  file.with_name(f'{file.name}.json').write_text(json.dumps(about))
  package = {'onnx': 'onnxruntime', 'tflite': 'ai_edge_litert'}[kind]
  for module in (package, f'{package}.interpreter'):
    monkeypatch.setitem(sys.modules, module, None)
  name = package.replace('_', '-')
  with pytest.raises(UsageError, match=f'needs {package}: pip install {name}'):
    jd.predictor(file)


def test_a_file_that_was_damaged_or_mixed_up_is_refused(exported):
  file = exported / 'kd-0-last.safetensors'
  content = bytearray(file.read_bytes())
  content[-1] ^= 1  # a bit of a weight, which no reader would notice
  file.write_bytes(content)
  with pytest.raises(UsageError, match='is damaged, or kd-0-last'):
    jd.predictor(file)
  best = exported / 'kd-0-best.stablehlo'
  best.write_bytes((exported / 'kd-0-last.stablehlo').read_bytes() + b' ')
  with pytest.raises(UsageError, match='describes another file'):
    jd.predictor(best)


def test_a_program_without_its_description_is_refused(exported):
  (exported / 'kd-0-last.stablehlo.json').unlink()
  with pytest.raises(UsageError, match='expected its description'):
    jd.predictor(exported / 'kd-0-last.stablehlo')


def test_a_folder_with_several_rows_asks_for_a_file(cli, config, copied):
  cli.fit(config, copied, '--mode=export')
  with pytest.raises(UsageError, match="one row, got those of 'kd', 'student "):
    jd.predictor(copied)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('none', 'none: expected an exported file, got no such file'),
    (__file__, 'expected an exported file, which ends with .safetensors'),
    ('.', 'expected a folder with exported students'),
  ],
)
def test_what_is_no_exported_student_is_named(name, message, tmp_path):
  with pytest.raises(UsageError, match=message):
    jd.predictor(tmp_path / name)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'task': {'name': 'os:system'}}, "got 'os:system'; pass your own one"),
    ({'task': {'name': 'depth', 'x': 1}}, "unknown key of task 'x'"),
    ({'task': {'name': ['depth']}}, r"got \['depth'\]; pass your own one"),
    ({'image_shape': [8, 8]}, r'an image_shape \[H, W, C\]'),
    ({'image_shape': 'big'}, 'a list of int as image_shape, got big'),
    ({'mean': [1.0, 2.0]}, 'C numbers as mean and std'),
    ({'label_names': [0]}, 'a list of str as label_names'),
    ({'fitting': 'cut'}, "unknown fitting 'cut'"),
    ({'range': [1]}, 'range: expected two different numbers'),
    ({'background': 3}, "background: expected 'white', 'black' or three"),
  ],
)
def test_a_description_from_anywhere_is_checked(
  change, message, exported, tmp_path
):
  tree, metadata = files.load_tree(exported / 'kd-0-last.safetensors')
  path = tmp_path / 'changed.safetensors'
  files.save_tree(path, tree, {**metadata, **change})
  with pytest.raises(UsageError, match=message) as error:
    jd.predictor(path)
  assert '\n' not in str(error.value)


def test_the_file_of_a_teacher_does_not_say_what_images_it_takes(workdir):
  with pytest.raises(UsageError, match='does not say its image_shape'):
    jd.predictor(workdir / 'teacher.safetensors')


def test_a_task_of_ones_own_is_passed(exported, tmp_path, images):
  tree, metadata = files.load_tree(exported / 'kd-0-last.safetensors')
  path = tmp_path / 'own.safetensors'
  files.save_tree(path, tree, {**metadata, 'task': {'name': 'mine:task'}})
  own = jd.tasks.classification()._replace(predict=lambda x, _: x.argmin(-1))
  opened = jd.predictor(path, task=own)
  np.testing.assert_array_equal(
    opened(images), opened.outputs(images).argmin(-1)
  )


def test_a_predictor_is_shown_without_its_weights(student):
  assert repr(student).startswith("Predictor(task='classification', image_")
