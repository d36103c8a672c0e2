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
import safetensors.numpy

import jaxdistill as jd
from jaxdistill import study
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.study import arguments, build, config
from jaxdistill.study.distilling import (
  call,
  compiling,
  fine_tuning,
  teachers,
)
from jaxdistill.study.distilling.outcome import Distilled

NAMES = ('ant', 'bee')
HUB = pathlib.Path(__file__).parents[1] / 'networks/hub_fixtures'


def network_of(outputs, width=4):
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(outputs)),
    )
  )


IMAGE = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}


def model_of(outputs, seed=0):
  network = network_of(outputs)
  return Model(network, graph.init(network, jax.random.key(seed), IMAGE))


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


def row(plan, label):
  return next(row.resolved for row in plan.rows if row.label == label)


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


def test_a_teacher_of_other_classes_teaches_its_features(
  folder, tmp_path, planned
):
  plan = planned(folder, teacher=model_of(5), student=0.5, out=tmp_path)
  assert [r.label for r in plan.rows] == ['labels only', 'srrl']
  assert plan.networks['student'] == network_of(2, 2)
  jd.save(tmp_path / 't.safetensors', model_of(2), {'label_names': ['a', 'b']})
  plan = planned(
    folder, teacher=tmp_path / 't.safetensors', out=tmp_path / 'other'
  )
  assert plan.rows[-1].label == 'srrl'


def test_a_teacher_of_other_classes_is_fine_tuned_for_methods_that_need_classes(
  folder, tmp_path, planned, capsys
):
  keys = {'teacher': model_of(5), 'method': 'kd', 'epochs': 2, 'show': True}
  plan = planned(folder, out=tmp_path / 'a', **keys)
  assert [r.label for r in plan.rows] == ['teacher', 'labels only', 'kd']
  assert plan.networks['teacher'] == network_of(2)
  params = study.initial_model(plan, 'teacher', 0).variables['params']
  jax.tree.map(
    np.testing.assert_array_equal,
    params['stem'],
    model_of(5).variables['params']['stem'],
  )
  # 14 batches of 2 images an epoch: 500 steps of the teacher.
  teacher, student = row(plan, 'teacher'), row(plan, 'kd')
  assert teacher['method']['name'] == 'head_first'
  assert teacher['optimizer']['name'] == 'adamw'
  assert [teacher['epochs'], student['epochs']] == [36, 2]
  rate = fine_tuning.RATES['sgd'] * 2 / compiling.LARGEST_BATCH
  assert teacher['schedule']['rate'] == rate
  text = (
    'to be fine-tuned on these labels for 36 epochs with adamw: its new head '
    'first'
  )
  assert text in capsys.readouterr().err
  plan = planned(folder, out=tmp_path / 'b', teacher_epochs=3, **keys)
  assert row(plan, 'teacher')['epochs'] == 3
  # Its section may say how, and a head that compares directions learns too.
  head = layers.CosineClassifier(5, 10.0)
  stages = (*network_of(5).stages[:-1], Stage('head', head))
  variables = graph.init(Network(stages), jax.random.key(0), IMAGE)
  jd.save(tmp_path / 't.safetensors', Model(Network(stages), variables))
  keys['teacher'] = {
    'checkpoint': str(tmp_path / 't.safetensors'),
    'training': {'epochs': 7},
  }
  plan = planned(folder, out=tmp_path / 'c', **keys)
  teacher = row(plan, 'teacher')
  assert [teacher['epochs'], teacher['method']['name']] == [7, 'head_first']
  with pytest.raises(jd.UsageError, match=r'^teacher_epochs: .*got 3 and 7'):
    planned(folder, out=tmp_path / 'd', teacher_epochs=3, **keys)


@pytest.mark.parametrize('own', [{}, {'mean': (9.0, 9.0, 9.0)}])
def test_a_fine_tuned_teacher_gets_images_as_in_its_first_training(
  folder, tmp_path, planned, own
):
  about = {'mean': [1.0, 2.0, 3.0], 'std': [4.0, 5.0, 6.0]}
  jd.save(tmp_path / 't.safetensors', model_of(5), about)
  plan = planned(
    {'name': 'images', 'path': str(folder), 'image_size': 8, **own},
    teacher=tmp_path / 't.safetensors',
    method='kd',
    out=tmp_path / 'out',
  )
  assert plan.rows[0].label == 'teacher'
  assert plan.dataset.mean == own.get('mean', (1.0, 2.0, 3.0))
  assert plan.dataset.std == (4.0, 5.0, 6.0)
  again = study.plan(plan.config)
  assert (again.dataset.mean, again.dataset.std) == (
    plan.dataset.mean,
    plan.dataset.std,
  )


@pytest.mark.parametrize(
  ('about', 'message'),
  [
    ({'std': [4.0, 0.0, 6.0]}, 'std: expected a number above 0, got 0.0'),
    ({'mean': [1.0, 'x', 3.0]}, "mean: expected a number, got 'x'"),
  ],
)
def test_an_invalid_number_of_a_fine_tuned_teacher_is_that_of_its_file(
  folder, tmp_path, planned, about, message
):
  file = tmp_path / 't.safetensors'
  jd.save(file, model_of(5), about)
  data = {'name': 'images', 'path': str(folder), 'image_size': 8}
  with pytest.raises(jd.UsageError, match=f'^{file}: {message}$'):
    planned(data, teacher=file, method='kd', out=tmp_path / 'out')


def test_a_fine_tuned_teacher_teaches_the_classes_of_the_data(folder, tmp_path):
  outcome = jd.distill(
    folder,
    teacher=model_of(5),
    method='kd',
    out=tmp_path,
    baseline=False,
    seeds=1,
    epochs=1,
    teacher_epochs=2,
    batch_size=8,
    formats=(),
    show=False,
  )
  teacher, kd = outcome.results['rows']
  names = [cost['phase'] for cost in teacher['seeds']['0']['phases']]
  assert names == ['head', 'fine_tuning']
  assert [r['seeds']['0']['steps'] for r in (teacher, kd)] == [6, 3]
  assert outcome.teacher.model.network == network_of(2)
  page = outcome.report.read_text()
  assert 'head_first(' in page and 'adamw(' in page


def test_a_teacher_that_is_trained_has_epochs_and_an_optimizer_of_its_own(
  folder, tmp_path, planned
):
  vit = {'name': 'vit', 'width': 8, 'depth': 1, 'heads': 1, 'patch': 4}
  keys = {'student': 'resnet8', 'epochs': 2, 'teacher_epochs': 3}
  plan = planned(folder, teacher=vit, out=tmp_path / 'a', **keys)
  teacher, student = row(plan, 'teacher'), row(plan, 'kd')
  assert [teacher['epochs'], student['epochs']] == [3, 2]
  names = [x['optimizer']['name'] for x in (teacher, student)]
  assert names == ['adamw', 'sgd']
  section = {**vit, 'training': {'optimizer': {'name': 'lars'}}}
  plan = planned(folder, teacher=section, out=tmp_path / 'b', **keys)
  assert row(plan, 'teacher')['optimizer']['name'] == 'lars'
  with pytest.raises(jd.UsageError, match=r'^teacher_epochs: .*used as it is'):
    planned(folder, teacher=model_of(2), out=tmp_path / 'c', teacher_epochs=3)


def test_a_head_for_as_many_but_other_classes_is_new(folder, tmp_path, planned):
  model = model_of(2)
  jd.save(tmp_path / 't.safetensors', model, {'label_names': ['a', 'b']})
  plan = planned(
    folder, teacher=tmp_path / 't.safetensors', out=tmp_path, method='kd'
  )
  params = study.initial_model(plan, 'teacher', 0).variables['params']
  old = model.variables['params']
  kernels = [x['head']['linear']['kernel'] for x in (params, old)]
  assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
  stems = [jax.tree.leaves(x['stem']) for x in (params, old)]
  jax.tree.map(np.testing.assert_array_equal, *stems)


@pytest.mark.parametrize('width', [2, 4])
def test_a_teacher_without_a_head_cannot_teach_scores(
  width, folder, tmp_path, planned
):
  path = tmp_path / 't.safetensors'
  network = Network(network_of(2, width).stages[:2])
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}
  variables = graph.init(network, jax.random.key(0), image)
  jd.save(path, Model(network, variables))
  with pytest.raises(jd.UsageError, match=r"^method: expected 'embedding'"):
    planned(
      folder,
      teacher=path,
      student=network_of(2, 2),
      out=tmp_path / 'o',
      method='kd',
    )


def test_a_teacher_that_resizes_its_images_is_not_fine_tuned(
  folder, tmp_path, planned
):
  path = str(tmp_path / 't.safetensors')
  jd.save(path, model_of(5))
  section = {'checkpoint': path, 'image_size': 16}
  with pytest.raises(jd.UsageError, match=r'kd: the method takes the teacher'):
    planned(folder, teacher=section, out=tmp_path / 'o', method='kd')


def test_a_section_with_other_initial_weights_is_a_teacher(
  folder, tmp_path, planned
):
  section = {'name': 'resnet8', 'initial': {'name': 'normal', 'std': 0.1}}
  plan = planned(folder, teacher=section, student=0.5, out=tmp_path)
  assert plan.initial.keys() == {'teacher'}
  assert 'initial' not in row(plan, 'kd')['student']['network']
  section = {'checkpoint': 'x', 'initial': {'name': 'normal'}}
  with pytest.raises(jd.UsageError, match=r'^teacher\.initial: expected'):
    planned(folder, teacher=section, out=tmp_path / 'o')


@pytest.mark.parametrize('count', [1, 2])
def test_the_teacher_of_a_calls_config_can_be_given_again(
  count, folder, tmp_path, planned
):
  paths = [str(tmp_path / f'{i}.safetensors') for i in range(count)]
  for i, path in enumerate(paths):
    jd.save(path, model_of(3 + i))
  arguments = {'student': 'resnet8', 'method': 'embedding'}
  teacher = paths if count > 1 else paths[0]
  planned(folder, teacher=teacher, out=tmp_path / 'a', **arguments)
  section = config.load(str(tmp_path / 'a/config.py'))['teacher'].to_dict()
  again = planned(folder, teacher=section, out=tmp_path / 'b', **arguments)
  assert again.config['teacher'] == section
  if count == 1:  # a network that gives vectors has no scores of classes
    section = section['joined'][0]
    plan = planned(folder, teacher=section, out=tmp_path / 'c')
    assert plan.rows[-1].label == 'embedding'


def test_a_folder_of_hugging_face_is_a_teacher_that_resizes_images(
  folder, tmp_path, planned
):
  place = HUB / 'dinov2_classifier'
  plan = planned(folder, teacher=place, student='resnet8', out=tmp_path)
  kept = config.load(str(tmp_path / 'config.py'))
  expected = {'weights': str(place), 'image_size': 28}
  assert kept['teacher'].to_dict() == expected
  assert plan.rows[-1].label == 'srrl'  # it knows a cat, a dog and a frog


@pytest.mark.parametrize(
  ('outputs', 'mean'), [(1000, (123.675, 116.28, 103.53)), (2, None)]
)
def test_weights_of_imagenet_get_images_standardised_as_imagenet(
  outputs, mean, folder, tmp_path, planned
):
  network = jd.networks.create('resnet8', num_classes=outputs)
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}
  shapes = graph.variable_shapes(network, image)
  variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  model = Model(network, variables)
  path = tmp_path / 'w.safetensors'
  safetensors.numpy.save_file(jd.networks.to_torch(model), str(path))
  plan = planned(
    folder,
    teacher=f'resnet8:{path}',
    student='resnet8',
    method='at',
    out=tmp_path / 'o',
  )
  if mean is not None:
    assert plan.dataset.mean == mean
  assert plan.teacher.network.stages[-1].module.num_classes == outputs


def torch_file(name, path, size, **arguments):
  """Writes PyTorch weights of a network for images of a size."""
  network = jd.networks.create(name, num_classes=1000, **arguments)
  image = {'image': jax.ShapeDtypeStruct((1, size, size, 3), np.float32)}
  shapes = graph.variable_shapes(network, image)
  normal = np.random.default_rng(0).normal
  variables = jax.tree.map(lambda x: np.float32(normal(size=x.shape)), shapes)
  model = Model(network, variables)
  safetensors.numpy.save_file(jd.networks.to_torch(model), str(path))


def test_pytorch_weights_are_shaped_for_the_size_that_the_teacher_resizes_to(
  folder, tmp_path, planned
):
  path = tmp_path / 'w.safetensors'
  small = {'patch': 4, 'width': 8, 'depth': 1, 'heads': 1}
  torch_file('vit', path, 16, **small)
  section = {'name': 'vit', **small, 'weights': str(path), 'image_size': 16}
  plan = planned(
    folder, teacher=section, student='resnet8', method='at', out=tmp_path / 'o'
  )
  shapes = [x.shape for x in jax.tree.leaves(plan.teacher.variables)]
  assert (1, 17, 8) in shapes  # positions of 4 x 4 patches and a class token


SMALL = {'patch': 8, 'width': 8, 'depth': 1, 'heads': 1}


def test_a_transformer_of_pytorch_is_fine_tuned_if_its_positions_fit(
  folder, tmp_path, planned
):
  path = tmp_path / 'w.safetensors'
  torch_file('vit', path, 224, **SMALL)
  keys = {'student': 'resnet8', 'method': 'kd', 'epochs': 1}
  section = {'name': 'vit', **SMALL, 'weights': str(path)}
  with pytest.raises(jd.UsageError, match=r'^teacher: its weights of stem'):
    planned(folder, teacher=section, out=tmp_path / 'a', **keys)
  assert not (tmp_path / 'a').exists()
  keys['image_size'] = 224
  plan = planned(folder, teacher=section, out=tmp_path / 'b', **keys)
  (note,) = [note for note in plan.notes if note.startswith('teacher: ')]
  assert note.startswith('teacher: 3 of 4 stages begin with the weights of ')
  assert note.endswith('these are new: head')


def test_a_network_of_pytorch_without_a_head_gives_vectors(
  folder, flat, tmp_path, planned
):
  path = tmp_path / 'w.safetensors'
  torch_file('vit', path, 8, head=False, **SMALL)
  section = {'name': 'vit', **SMALL, 'head': False, 'weights': str(path)}
  keys = {'teacher': section, 'student': 'resnet8', 'epochs': 1}
  for data in (folder, flat):
    plan = planned(data, out=tmp_path / data.name, **keys)
    assert plan.task.name == 'embedding'
  with pytest.raises(jd.UsageError, match=r"^method: expected 'embedding'"):
    planned(folder, out=tmp_path / 'kd', method='kd', **keys)


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


def test_a_section_with_a_file_is_a_trained_teacher(tmp_path):
  section = {'name': 'my_file:my_teacher', 'checkpoint': 'a.safetensors'}
  teacher = teachers.chosen(section, (8, 8, 3), tmp_path)
  assert teacher.is_trained and teacher.section == section
  teacher = teachers.chosen({'name': 'resnet8'}, (8, 8, 3), tmp_path)
  assert not teacher.is_trained


def test_keys_of_a_section_are_kept(folder, tmp_path, planned):
  data = {'name': 'images', 'path': str(folder), 'validation': 4, 'test': 0.5}
  teacher = {'name': 'resnet8', 'training': {'epochs': 7}}
  plan = planned(data, teacher=teacher, out=tmp_path)
  assert len(plan.dataset.splits['validation']['label']) == 4
  assert len(plan.dataset.splits['test']['label']) == 20
  assert plan.rows[0].resolved['epochs'] == 7
