"""One call: what it compiles its arguments into, and what it returns."""

import inspect
import json
import os
import pathlib

from flax import linen as nn
from flax import nnx
import jax
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.study import arguments, build, config, predictors
from jaxdistill.study.distilling import call
from jaxdistill.study.distilling.outcome import Distilled

NAMES = ('ant', 'bee')
IMAGE = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}


def network_of(outputs, width=4):
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(outputs)),
    )
  )


def model_of(outputs, seed=0):
  network = network_of(outputs)
  return Model(network, graph.init(network, jax.random.key(seed), IMAGE))


def row(plan, label):
  return next(row.resolved for row in plan.rows if row.label == label)


class Linear(nn.Module):
  """A teacher of Linen."""

  @nn.compact
  def __call__(self, x, is_training):
    del is_training
    return nn.Dense(2)(x.mean((1, 2)))


class NnxLinear(nnx.Module):
  """A teacher of NNX."""

  def __init__(self, rngs):
    self.head = nnx.Linear(3, 2, rngs=rngs)

  def __call__(self, x):
    return self.head(x.mean((1, 2)))


class NnxOfMaxima(NnxLinear):
  """A teacher that differs from the other one in its code only."""

  def __call__(self, x):
    return self.head(x.max((1, 2)))


def test_a_folder_and_the_name_of_a_teacher_are_enough(
  folder, tmp_path, planned
):
  plan = planned(folder, teacher='resnet8', out=tmp_path)
  assert [r.label for r in plan.rows] == ['teacher', 'labels only', 'kd']
  assert plan.rows[-1].seeds == (0, 1, 2)
  assert {k: len(v['label']) for k, v in plan.dataset.splits.items()} == {
    'train': 29,
    'validation': 3,
    'test': 8,
  }
  kd = row(plan, 'kd')
  assert kd['student']['share'] == 0.5
  assert kd['augment'] == {'name': 'crop_flip', 'padding': 1, 'mirror': True}
  assert kd['batch_size'] == 2 and kd['epochs'] == 143


def test_the_config_of_a_call_is_accepted_by_itself(folder, tmp_path, planned):
  plan = planned(folder, teacher='resnet8', out=tmp_path)
  kept = build.plan(config.load(str(tmp_path / 'config.py')))
  assert [r.resolved for r in kept.rows] == [r.resolved for r in plan.rows]


def test_the_command_and_the_function_take_the_same_arguments():
  parameters = inspect.signature(jd.distill).parameters
  parser = arguments.command_parser('distill')
  options = vars(parser.parse_args(['d', '--teacher=t', '--out=o']))
  names = {'format': 'formats'}
  shell = {
    names.get(action.dest, action.dest)
    for action in parser._actions
    if action.dest not in ('help', 'fast_cpu')
  }
  assert shell == {*parameters} - {'show', 'interrupted'}
  for name in shell - {'data', 'teacher', 'out', 'formats'}:
    assert options[name] == parameters[name].default, name


def test_the_command_calls_the_function(cli, monkeypatch):
  calls = []
  monkeypatch.setattr(
    call, 'distill', lambda data, **options: calls.append((data, options)) or ''
  )
  code, _, err = cli.call(
    *('distill', 'd', '--teacher=t', '--student=0.25', '--out=o', '--seeds=2'),
    *('--no_baseline', '--format=stablehlo'),
  )
  assert code == 0, err
  ((data, options),) = calls
  assert data == 'd' and options['teacher'] == 't'
  assert options['student'] == 0.25 and options['seeds'] == 2
  assert options['baseline'] is False and options['formats'] == ('stablehlo',)


@pytest.mark.parametrize(
  'teacher',
  [
    model_of(2),
    tuple(model_of(2)),
    (Linear(), Linear().init(jax.random.key(0), np.ones((1, 8, 8, 3)), False)),
    NnxLinear(nnx.Rngs(0)),
  ],
  ids=['model', 'network and variables', 'linen', 'nnx'],
)
def test_a_teacher_that_is_an_object_becomes_files_of_the_config(
  teacher, folder, tmp_path, planned
):
  plan = planned(
    folder, teacher=teacher, student=network_of(2, 2), out=tmp_path
  )
  kept = build.plan(config.load(str(tmp_path / 'config.py')))
  assert kept.teacher is not None and not kept.foreign_teacher
  image = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype('float32')
  expected = plan.teacher
  if isinstance(teacher, NnxLinear):
    outputs = teacher(image)
  elif isinstance(teacher[0], nn.Module):
    outputs = teacher[0].apply(teacher[1], image, False)
  else:
    outputs = graph.apply(*teacher, image)
  for model in (expected, kept.teacher):
    np.testing.assert_allclose(
      graph.apply(*model, image), outputs, rtol=1e-5, atol=1e-6
    )


def test_a_teacher_with_the_same_weights_and_other_code_is_another_teacher(
  folder, tmp_path, planned
):
  sections, checksums = [], []
  for kind in (NnxLinear, NnxOfMaxima, NnxLinear):
    plan = planned(
      folder,
      teacher=kind(nnx.Rngs(0)),
      student=network_of(2, 2),
      out=tmp_path,
    )
    section = plan.config['teacher']
    sections.append(section)
    checksums.append(row(plan, 'kd')['teacher']['checksum'])
  assert sections[0] == sections[2] and checksums[0] == checksums[2]
  assert sections[0]['checkpoint'] != sections[1]['checkpoint']
  assert checksums[0] != checksums[1]
  # A program that is damaged or mixed up is noticed as well.
  paths = [pathlib.Path(section['path']) for section in sections[:2]]
  paths[0].write_bytes(paths[1].read_bytes())
  mixed = build.plan({**plan.config, 'teacher': sections[0]})
  assert row(mixed, 'kd')['teacher']['checksum'] == checksums[1]


def test_the_student_can_be_a_share_of_a_teacher_from_a_file(
  folder, tmp_path, planned
):
  jd.save(tmp_path / 'teacher.safetensors', model_of(2))
  plan = planned(folder, teacher=tmp_path, student=0.5, out=tmp_path / 'o')
  assert plan.networks['student'] == network_of(2, 2)
  assert plan.rows[0].label == 'labels only'


@pytest.mark.parametrize(
  ('student', 'stages'),
  [('resnet8', 5), ({'name': 'resnet14'}, 8), (network_of(2, 2), 3)],
  ids=['name', 'section', 'network'],
)
def test_a_student_is_a_name_a_section_or_a_network(
  student, stages, folder, tmp_path, planned
):
  plan = planned(folder, teacher='resnet8', student=student, out=tmp_path)
  assert len(plan.networks['student'].stages) >= stages


def test_images_without_labels_are_distilled_by_the_teachers_outputs(
  flat, tmp_path, planned
):
  plan = planned(flat, teacher=model_of(7), out=tmp_path)
  (kd,) = plan.rows
  assert kd.resolved['method']['label_weight'] == 0.0
  assert plan.dataset.num_classes == 0 and plan.task.name == 'imitation'
  assert plan.networks['student'].stages[-1].module.num_classes == 7
  assert plan.class_names == ()


def test_a_student_without_labels_has_the_names_of_the_teachers_classes(
  flat, tmp_path, planned
):
  path = tmp_path / 't.safetensors'
  jd.save(path, model_of(2), {'label_names': NAMES})
  plan = planned(flat, teacher=path, out=tmp_path / 'kd')
  model = jd.Model(plan.networks['student'], plan.teacher.variables)
  assert predictors.of_plan(plan, model).label_names == NAMES
  plan = planned(flat, teacher=path, method='embedding', out=tmp_path / 'e')
  assert plan.class_names == ()


@pytest.mark.parametrize('student', [0.5, network_of(2, 2)])
def test_a_call_continues_however_its_paths_are_spelled(
  student, folder, tmp_path, planned, monkeypatch
):
  jd.save(tmp_path / 't.safetensors', model_of(2))
  monkeypatch.chdir(tmp_path)
  first, *others = (
    planned(data, teacher=teacher, student=student, out=out).rows[-1].resolved
    for data, teacher, out in (
      (folder, 't.safetensors', 'o'),
      (str(folder), tmp_path / 't.safetensors', tmp_path / 'o'),
      (os.path.relpath(folder, tmp_path), './t.safetensors', './o'),
    )
  )
  assert all(other['student'] == first['student'] for other in others)
  kept = config.load(str(tmp_path / 'o/config.py'))
  for section in (kept['data'], kept['teacher']):
    path = section.get('path') or section['checkpoint']
    assert pathlib.Path(path).is_absolute()


SCORES = {'labels only': (0.80, 0.82, 0.81), 'kd': (0.90, 0.91, 0.92)}


def finished(label, method, scores, agreement=0.95):
  """The result of a row."""
  seeds = {
    str(seed): {
      'test': {'last': {'top1': score}},
      'agreement': agreement,
      'parameters': 10,
      'steps': 1,
      'seconds': 1.0,
    }
    for seed, score in enumerate(scores)
  }
  row_config = {'student': {}, 'method': {'name': method}}
  return {'label': label, 'config': row_config, 'seeds': seeds}


def outcome_of(rows, has_labels=True):
  results = {'rows': rows, 'score': 'top1', 'reads_teacher': not has_labels}
  return Distilled(None, pathlib.Path('w'), results, (), has_labels)


def test_the_verdict_is_one_sentence():
  rows = [
    finished('labels only', 'supervised', SCORES['labels only']),
    finished('kd', 'kd', SCORES['kd']),
  ]
  outcome = outcome_of(rows)
  assert outcome.verdict.startswith('kd: HELPS (+10.00 points')
  assert outcome.rows['kd'] == pytest.approx((90, 91, 92))
  assert str(outcome).splitlines()[-1] == 'w/report.html'
  assert 'nothing to compare' in outcome_of(rows[:1]).verdict
  unlabelled = outcome_of(rows[1:], has_labels=False)
  assert 'top1 91.00% with the teacher' in unlabelled.verdict


def test_the_teacher_predicts_classes_of_raw_images(folder, tmp_path, planned):
  model = model_of(2)
  plan = planned(folder, teacher=model, student=0.5, out=tmp_path)
  outcome = Distilled(plan, tmp_path, {}, (), True)
  images = plan.dataset.splits['test']['image']
  standardised = (images - np.array(plan.dataset.mean)) / plan.dataset.std
  expected = graph.apply(*model, standardised.astype(np.float32)).argmax(-1)
  predicted = outcome.teacher(images)
  np.testing.assert_array_equal(predicted, expected)
  assert outcome.teacher.label_names == NAMES
  for wrong in (images[0], images[:, :4], images.astype(np.float32)):
    with pytest.raises(jd.UsageError, match='images: expected uint8'):
      outcome.teacher(wrong)


def test_a_call_says_what_it_is_about_to_do(folder, tmp_path, planned, capsys):
  planned(folder, teacher='resnet8', out=tmp_path, show=True)
  lines = capsys.readouterr().err.splitlines()
  assert lines[0].endswith(
    '40 images (29 train, 3 validation, 8 test), 2 classes, 8 x 8 pixels'
  )
  assert 'resnet8' in lines[1] and 'to be trained' in lines[1]
  assert "25.4 % of the teacher's" in lines[2]
  assert json.dumps(str(tmp_path))[1:-1] in lines[-1]


def test_the_work_directory_of_another_call_is_refused(
  folder, tmp_path, planned
):
  plan = planned(folder, teacher='resnet8', out=tmp_path)
  path = tmp_path / 'rows' / 'kd' / 'row.json'
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps(plan.rows[-1].resolved))
  planned(folder, teacher='resnet8', out=tmp_path, seeds=4)  # adds a seed
  with pytest.raises(
    jd.UsageError, match=r"row 'kd'.*epochs.*another"
  ) as error:
    planned(folder, teacher='resnet8', out=tmp_path, epochs=2)
  assert '\n' not in str(error.value)


def test_keys_of_a_section_are_kept(folder, tmp_path, planned):
  data = {'name': 'images', 'path': str(folder), 'validation': 4, 'test': 0.5}
  teacher = {'name': 'resnet8', 'training': {'epochs': 7}}
  plan = planned(data, teacher=teacher, out=tmp_path)
  assert len(plan.dataset.splits['validation']['label']) == 4
  assert len(plan.dataset.splits['test']['label']) == 20
  assert plan.rows[0].resolved['epochs'] == 7
