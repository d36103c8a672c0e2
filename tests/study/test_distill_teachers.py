"""The teacher of one call: its classes, its training, and where it is from."""

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

import jaxdistill as jd
from jaxdistill import study
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.study import config
from jaxdistill.study.distilling import compiling, fine_tuning, teachers

HUB = pathlib.Path(__file__).parents[1] / 'networks/hub_fixtures'
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
  variables = graph.init(network, jax.random.key(0), IMAGE)
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
  shapes = graph.variable_shapes(network, IMAGE)
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


def test_a_section_with_a_file_is_a_trained_teacher(tmp_path):
  section = {'name': 'my_file:my_teacher', 'checkpoint': 'a.safetensors'}
  teacher = teachers.chosen(section, (8, 8, 3), tmp_path)
  assert teacher.is_trained and teacher.section == section
  teacher = teachers.chosen({'name': 'resnet8'}, (8, 8, 3), tmp_path)
  assert not teacher.is_trained
