"""Teachers from files whose images or classes differ from the data's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import networks, objectives, study
from jaxdistill.core import marks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Affine, Model, Network, Stage
from jaxdistill.networks import description, graph, layers
from jaxdistill.networks.weights import files
from jaxdistill.study import measurements, models
from jaxdistill.tasks import evaluation
from jaxdistill.training import log, loop
from jaxdistill.training.distributed import sharding

MEAN, STD, NAMES = (100.0,), (50.0,), ('cat', 'dog', 'elk')
KD, AT = {'name': 'kd'}, {'name': 'at'}
STUDENT = {'name': 'resnet8', 'stem_width': 2, 'widths': (2, 2, 4)}


def network_of(num_classes, width=2):
  return Network(
    (
      Stage('stem', layers.ConvUnit(width, stride=2)),
      Stage('group1.unit', layers.ConvUnit(width)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(num_classes)),
    )
  )


def model_of(network, seed=0):
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)}
  return Model(network, graph.init(network, jax.random.key(seed), image))


@pytest.fixture(scope='module')
def plan_of(tmp_path_factory, arrays, place):
  """A function that plans rows with a teacher's model and metadata."""
  del place  # it makes network_for_tests importable
  folder = tmp_path_factory.mktemp('teachers')
  np.savez(folder / 'data.npz', **arrays(label_names=np.array(NAMES)))

  def plan(model, metadata, student=STUDENT, **methods):
    files.save(folder / 'teacher.safetensors', model, metadata)
    data = {'name': 'npz', 'path': str(folder / 'data.npz'), 'validation': 16}
    return study.plan(
      {
        'data': {**data, 'mean': MEAN, 'std': STD},
        'student': student,
        'teacher': {'checkpoint': str(folder / 'teacher.safetensors')},
        'methods': methods or {'kd': KD},
        'batch_size': 16,
        'epochs': 1,
      }
    )

  return plan


def raw_logits(model, mean, std, images):
  """A model's logits for raw images that are standardised as it expects."""
  image = (images.astype(np.float64) - mean) / std
  return graph.apply(*model, jnp.asarray(image, jnp.float32))


@pytest.mark.parametrize(
  ('mean', 'std'), [((0.0,), (255.0,)), ((127.5,), (127.5,)), (MEAN, (1.0,))]
)
def test_a_teacher_sees_images_as_its_own_file_says(plan_of, mean, std):
  model = model_of(network_of(3))
  plan = plan_of(model, {'mean': mean, 'std': std, 'label_names': NAMES})
  images = plan.dataset.splits['test']['image']
  prepared = plan.preprocess(jax.random.key(0), {'image': jnp.asarray(images)})
  np.testing.assert_allclose(
    graph.apply(*plan.teacher, prepared['image']),
    raw_logits(model, mean, std, images),
    rtol=1e-4,
    atol=1e-4,
  )
  (note,) = plan.notes
  assert 'was trained on images of mean' in note
  # The weights, and all stages but the first, are the file's.
  jax.tree.map(
    np.testing.assert_array_equal, plan.teacher.variables, model.variables
  )
  assert plan.teacher.network.stages[1:] == model.network.stages[1:]


@pytest.mark.parametrize('metadata', [{}, {'mean': MEAN, 'std': STD}])
def test_a_teacher_that_agrees_with_the_data_is_unchanged(plan_of, metadata):
  model = model_of(network_of(3))
  plan = plan_of(model, metadata)
  assert plan.teacher.network == model.network
  assert plan.notes == ()


def test_a_teacher_of_other_images_has_its_own_accuracy(
  cli, config, finished, workdirs, tmp_path
):
  measured = workdirs.result(finished[0], 'teacher')['test']['last']
  arguments = (
    f'{config}:kd',
    tmp_path / 'workdir',
    f'--config.teacher={{"checkpoint": "{finished[0]}"}}',
    '--config.data.mean=(20.0,)',
    '--config.data.std=(31.0,)',
  )
  _, err = cli.fit(*arguments)
  line = f'teacher from a file: top1 {100 * measured["top1"]:.2f}% on test'
  assert line in err.splitlines()
  assert 'not those of the data, (20) and (31)' in err
  # Exports say how the student's images are standardised.
  cli.fit(*arguments, '--mode=export')
  path = tmp_path / 'workdir/export/kd-0-last.safetensors'
  assert files.load_tree(path)[1]['mean'] == [20.0]


def test_a_teacher_of_other_images_teaches_the_same(plan_of):
  model = model_of(network_of(3))
  stem, *others = model.network.stages
  # The same function, for images that are standardised in another way.
  affine = Affine((255.0 / STD[0],), (-MEAN[0] / STD[0],))
  stages = (stem._replace(image=affine), *others)
  variants = (
    (model, {'mean': MEAN, 'std': STD}),
    (Model(Network(stages), model.variables), {'mean': [0], 'std': [255]}),
  )
  students = []
  for variant, metadata in variants:
    kd = {**KD, 'label_weight': 0.0}
    plan = plan_of(variant, metadata, {'name': 'network_for_tests:net'}, kd=kd)
    (row,) = plan.rows
    carry = {'student': models.initial_model(plan, 'student', 0)}
    carry['teacher'] = plan.teacher
    options = loop.FitOptions(log=log.Log(show=False))
    fitted = loop.fit(row.method, carry, plan.dataset, options=options)
    students.append(fitted.carry['student'].variables)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    *students,
  )


@pytest.mark.parametrize('order', [(1, 0, 2), (2, 0, 1), (2, 1, 0)])
def test_classes_in_another_order_are_reordered_by_name(plan_of, order):
  model = model_of(network_of(3))
  names = [NAMES[i] for i in order]
  plan = plan_of(model, {'label_names': names})
  images = plan.dataset.splits['test']['image']
  expected = raw_logits(model, MEAN, STD, images)
  received = raw_logits(plan.teacher, MEAN, STD, images)
  for place, name in enumerate(NAMES):
    np.testing.assert_array_equal(
      received[:, place], expected[:, names.index(name)]
    )
  (note,) = plan.notes
  assert 'reordered by name' in note


def test_a_permuted_teacher_has_its_own_accuracy(plan_of):
  model = model_of(network_of(3))
  accuracies = []
  for names in (NAMES, NAMES[::-1]):
    plan = plan_of(model, {'label_names': names})
    split = {**plan.dataset.splits['test']}
    # Its own labels, as numbers of its own classes.
    split['label'] = np.array([NAMES.index(names[i]) for i in split['label']])
    scores = evaluation.evaluate(
      plan.teacher, split, plan.task, plan.preprocess
    )
    accuracies.append(scores['top1'])
  assert accuracies[0] == accuracies[1]


def test_outputs_that_cannot_be_reordered_are_refused(plan_of):
  network = network_of(3)
  stages = (*network.stages[:-1], Stage('head', layers.Hidden(3)))
  with pytest.raises(UsageError, match="last stage 'head' cannot be reordered"):
    plan_of(model_of(Network(stages)), {'label_names': NAMES[::-1]})


@pytest.mark.parametrize(
  ('num_classes', 'names', 'reason'),
  [
    (3, ('cat', 'dog', 'fox'), "only the data have the class 'elk'"),
    (4, (*NAMES, 'fox'), "only the teacher has the class 'fox'"),
    (5, (), r'outputs have the shape \(5,\) for each image'),
    (2, ('cat', 'dog'), "only the data have the class 'elk'"),
  ],
)
def test_a_teacher_of_other_classes_teaches_by_features_only(
  plan_of, num_classes, names, reason
):
  model = model_of(network_of(num_classes))
  metadata = {'label_names': names} if names else {}
  with pytest.raises(UsageError, match=f'soft: the method .*{reason}') as error:
    plan_of(model, metadata, at=AT, soft=KD)
  assert '\n' not in str(error.value)
  plan = plan_of(
    model,
    metadata,
    at=AT,
    alone={'name': 'supervised'},
    sp={'name': 'joint', 'terms': {'sp': {}, 'rkd': {}}},
  )
  assert plan.foreign_teacher
  mesh = sharding.make_mesh()
  assert measurements.lazy_answers(plan, plan.teacher, mesh) is None


@pytest.mark.parametrize(
  'fields',
  [
    *({'activation': 'evil'}, {'initial': 'evil'}, {'dtype': 'evil'}),
    *({'kernel': 0}, {'kernel': -3}, {'width': -1}),
    {'width': 10**30},
  ],
)
def test_a_description_that_makes_no_network_is_refused_in_one_line(
  plan_of, monkeypatch, fields
):
  described = networks.to_description(network_of(3))
  described[0]['fields'] |= fields
  monkeypatch.setattr(description, 'to_description', lambda network: described)
  with pytest.raises(UsageError, match='teacher') as error:
    plan_of(model_of(network_of(3)), {})
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('mean', [1.0, 2.0]),
    ('mean', 'x'),
    ('mean', [float('nan')]),
    ('std', None),
    ('std', [0.0]),
    ('std', [1e-300]),
    ('std', [-1]),
    ('std', [True]),
    ('label_names', 'cat'),
    ('label_names', [1, 2, 3]),
    ('label_names', ['cat', 'cat', 'dog']),
  ],
)
def test_metadata_of_another_form_are_refused(plan_of, key, value):
  metadata = {'mean': [1.0], 'std': [1.0], key: value}
  if value is None:
    del metadata[key]
  with pytest.raises(UsageError, match=rf'teacher: .*{key}') as error:
    plan_of(model_of(network_of(3)), metadata)
  assert '\n' not in str(error.value)


def test_a_run_with_a_teacher_of_other_classes_measures_no_agreement(
  cli, config, tmp_path, workdirs
):
  path = tmp_path / 'teacher.safetensors'
  files.save(path, model_of(network_of(5)))
  arguments = (
    f'{config}:one',
    tmp_path / 'workdir',
    f'--config.teacher={{"checkpoint": "{path}"}}',
    '--config.method={"name": "at"}',
    f'--config.student={STUDENT}',
    '--config.epochs=1',
  )
  _, err = cli.fit(*arguments)
  assert 'neither its accuracy nor the agreement with it is measured' in err
  assert workdirs.result(tmp_path / 'workdir', 'at')['agreement'] is None
  cli.fit(*arguments, '--mode=evaluate')
  assert workdirs.result(tmp_path / 'workdir', 'at')['agreement'] is None


@pytest.mark.parametrize(
  'section',
  [
    {'name': 'sskd', 'num_stages': 1},
    {'name': 'multi_loss', 'num_stages': 1},
    {'name': 'fixed_backbone', 'method': AT},
    {'name': 'distpro'},
    {'name': 'distpro', 'use': ['last', 'process'], 'terms': {'at': AT}},
    {'name': 'distpro_retrain', 'use': 'equal'},
  ],
)
def test_methods_of_features_learn_from_a_teacher_of_other_classes(
  plan_of, section
):
  plan = plan_of(model_of(network_of(5)), {}, row=section)
  (row,) = plan.rows
  phase = row.method[0](models.abstract_carry(plan, 'student'))
  assert 'partial' not in phase.eval_models  # it would have the teacher's head


@pytest.mark.parametrize(
  'section',
  [
    {'name': 'distpro', 'terms': {'kd': KD}},
    {'name': 'fixed_backbone', 'method': KD},
    {'name': 'masked_layer'},
  ],
)
def test_methods_of_outputs_refuse_a_teacher_of_other_classes(plan_of, section):
  with pytest.raises(UsageError, match='row: '):
    plan_of(model_of(network_of(5)), {}, row=section)


def test_only_objectives_of_the_outputs_need_the_classes_of_the_data():
  outputs = {'dist', 'dkd', 'kd', 'logits', 'refinery', 'tempered'}
  outputs |= {'cwd', 'depth_kd', 'pixel_kd'}
  others = {'at', 'cc', 'crd', 'fd', 'fsp', 'ft', 'hint', 'nst', 'ofd', 'pkt'}
  others |= {'ab', 'ifv', 'pairwise', 'reviewkd', 'rkd', 'sp', 'srrl', 'vid'}
  others |= {'fgd'}
  for name in outputs | others:
    objective = getattr(objectives, name)()
    assert marks.allows_any_classes(objective) == (name in others), name


def test_an_affine_map_of_images_survives_a_file(tmp_path):
  network = network_of(3)
  affine = Affine((0.5,), (-1.0,))
  stages = (network.stages[0]._replace(image=affine), *network.stages[1:])
  model = model_of(Network(stages))
  networks.save(tmp_path / 'x.safetensors', model)
  read = networks.load(tmp_path / 'x.safetensors')
  assert read.network == model.network
  image = jnp.ones((2, 8, 8, 1))
  expected = graph.apply(network, read.variables, image * 0.5 - 1.0)
  np.testing.assert_array_equal(graph.apply(*read, image), expected)
