"""The teacher's outputs, computed once and stored."""

import copy
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
import scipy.special

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.loading import streaming
from jaxdistill.data.loading.stored import StoredColumn
from jaxdistill.data.transforms import top_scores
from jaxdistill.data.transforms import views as views_lib
from jaxdistill.networks import graph, layers
from jaxdistill.networks.weights import files
from jaxdistill.study import (
  build,
  models,
  runs,
  teacher_cache,
  teacher_outputs,
)
from jaxdistill.training import loop

COUNT = 3
AT = {'name': 'at', 'feature_pairs': [('stem', 'stem')]}


def model_of(outputs, seed=0, channels=1):
  network = Network(
    (
      Stage('stem', layers.ConvUnit(3, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(outputs)),
    )
  )
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, channels), np.float32)}
  return Model(network, graph.init(network, jax.random.key(seed), image))


@pytest.fixture(scope='module')
def keys(place, tmp_path_factory):
  """The keys of a config whose teacher is a file."""
  file = tmp_path_factory.mktemp('teacher') / 'teacher.safetensors'
  files.save(file, model_of(3))
  return {
    'data': {'name': 'npz', 'path': str(place / 'data.npz'), 'validation': 16},
    'teacher': {'checkpoint': str(file)},
    'student': {'name': 'network_for_tests:net'},
    'augment': {'name': 'crop_flip', 'padding': 2},
    'batch_size': 16,
    'epochs': 2,
    'log_every': 1,
    'methods': {'alone': {'name': 'supervised'}, 'kd': {'name': 'kd'}},
    'cache_teacher': COUNT,
  }


@pytest.fixture(scope='module')
def plan(keys):
  return build.plan(keys)


def row_of(plan, label='kd', dtype=np.float16):
  (row,) = [row for row in plan.rows if row.label == label]
  outputs = row.views.outputs.update(dtype=dtype)
  return row._replace(views=row.views._replace(outputs=outputs))


def column(plan, row, workdir, **options):
  options = {'say': lambda line: None, 'interrupted': lambda: False, **options}
  return teacher_outputs.column(plan, row, plan.teacher, workdir, **options)


def trained(plan, row, outputs, teacher):
  """Returns the student after training with stored outputs."""
  dataset = teacher_cache.with_column(plan.dataset, outputs, {'train'})
  carry = {
    'student': models.initial_model(plan, 'student', 0),
    'teacher': teacher,
  }
  fitted = loop.fit(row.method, carry, dataset, seed=0)
  return jax.tree.leaves(fitted.carry['student'].variables)


def test_only_rows_that_read_a_teacher_store_its_outputs(keys, plan):
  alone, kd = plan.rows
  assert alone.views is None and 'cache_teacher' not in alone.resolved
  assert kd.views.outputs.shape == (48, COUNT, 3)
  assert kd.resolved['cache_teacher'] == COUNT
  (note,) = plan.notes
  assert '3 views of each of 48 images, and stored in files of 0.9 kB' in note
  in_phases = {**keys, 'methods': {'x': {'name': 'head_first'}}}
  assert build.plan(in_phases).rows[-1].views is None


def test_stored_outputs_are_those_of_the_teacher_for_the_views(plan, tmp_path):
  row = row_of(plan, dtype=np.float32)
  outputs = column(plan, row, tmp_path)
  split = plan.dataset.splits['train']
  make = jax.jit(views_lib.fixed(row.views.augment))
  run = jax.jit(graph.apply, static_argnums=0)
  for i in range(COUNT):
    view = {**split, views_lib.VIEW: np.full(len(split['image']), i)}
    image = make(jax.random.key(0), view)['image']
    batch = plan.preprocess(jax.random.key(0), {'image': image})
    expected = run(*plan.teacher, batch['image'])
    np.testing.assert_array_equal(outputs[:, i], expected)
  half = column(plan, row_of(plan), tmp_path)
  np.testing.assert_array_equal(half, outputs.astype(np.float16))


def test_the_convolutions_of_fast_cpu_compute_stored_outputs(plan, convolved):
  """One device computes them where the processor appears as two."""
  outputs = teacher_outputs._compiled(plan, row_of(plan).views, plan.teacher)
  batch = {k: x[:4] for k, x in plan.dataset.splits['train'].items()}
  batch[views_lib.VIEW] = np.zeros(4, np.int32)
  jax.eval_shape(outputs, plan.teacher.variables, batch)
  assert convolved and all(shape[0] == 4 for shape in convolved)


def test_training_with_stored_outputs_is_training_with_the_teacher(
  plan, tmp_path
):
  row = row_of(plan, dtype=np.float32)
  exact = column(plan, row, tmp_path)
  rounded = column(plan, row_of(plan), tmp_path)
  without = Model(plan.teacher.network, {})
  # The same views; the teacher, which has its variables, runs in each step.
  expected = trained(plan, row, exact, plan.teacher)
  for outputs, tolerance in ((exact, 0), (rounded, 1e-3)):
    for x, y in zip(trained(plan, row, outputs, without), expected):
      np.testing.assert_allclose(x, y, rtol=0, atol=tolerance)
  others = trained(plan, row, exact + 1 - 2 * (exact > 0), without)
  assert any(np.abs(x - y).max() > 1e-2 for x, y in zip(others, expected))


def test_files_are_read_again_only_for_the_same_teacher_and_views(
  keys, plan, tmp_path
):
  first = column(plan, row_of(plan), tmp_path)
  folder = tmp_path / teacher_outputs.FOLDER
  (path,) = folder.glob('*/*.npy')
  written = path.stat().st_mtime_ns
  np.testing.assert_array_equal(column(plan, row_of(plan), tmp_path), first)
  assert path.stat().st_mtime_ns == written
  assert len([*folder.iterdir()]) == 1
  # Another teacher, other views, and other data have files of their own.
  variables = jax.tree.map(lambda x: x + 0.01, plan.teacher.variables)
  other = plan._replace(teacher=plan.teacher._replace(variables=variables))
  column(other, row_of(other), tmp_path)
  moved = row_of(plan)
  resolved = copy.deepcopy(moved.resolved)
  resolved['augment']['padding'] = 1
  column(plan, moved._replace(resolved=resolved), tmp_path)
  resolved = {**moved.resolved, 'data': {**resolved['data'], 'checksum': 1}}
  column(plan, moved._replace(resolved=resolved), tmp_path)
  assert len([*folder.iterdir()]) == 4
  # A file with other numbers is noticed.
  np.save(path, first + np.float16(0.5))
  with pytest.raises(UsageError, match=r"teacher's outputs, .*delete this"):
    column(plan, row_of(plan), tmp_path)


@pytest.mark.parametrize('factor', [1e7, 1e-6, np.nan])
def test_outputs_that_float16_cannot_hold_are_refused(factor, plan, tmp_path):
  params = dict(plan.teacher.variables['params'])
  params['head'] = jax.tree.map(lambda x: x * factor, params['head'])
  variables = {**plan.teacher.variables, 'params': params}
  other = plan._replace(teacher=plan.teacher._replace(variables=variables))
  with pytest.raises(UsageError, match='that float16 can hold'):
    column(other, row_of(other), tmp_path)
  assert not [*tmp_path.rglob('*.npy')]


def test_a_run_that_is_stopped_anywhere_ends_with_the_same_bits(plan, tmp_path):
  runs.run(plan, tmp_path / 'whole', rows=['kd'], show=False)
  name = 'rows/kd/0/phase0.safetensors'
  expected = safetensors.numpy.load_file(tmp_path / 'whole' / name)
  calls = 0

  def at(stop):
    nonlocal calls
    calls = 0

    def interrupted():
      nonlocal calls
      calls += 1
      return calls == stop

    return interrupted

  for stop in (1, 3, 5):
    workdir = tmp_path / f'stopped{stop}'
    with pytest.raises(loop.Interrupted):
      runs.run(plan, workdir, rows=['kd'], show=False, interrupted=at(stop))
    stored = bool([*workdir.rglob('*.npy')])
    assert stored == (stop > 1)
    runs.run(plan, workdir, rows=['kd'], show=False)
    tensors = safetensors.numpy.load_file(workdir / name)
    assert tensors.keys() == expected.keys()
    for key, value in expected.items():
      np.testing.assert_array_equal(tensors[key], value)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'methods': {'x': AT}}, "'at' reads more of the teacher"),
    # With the teacher, it compares what the classifiers read.
    ({'methods': {'x': {'name': 'embedding'}}}, "'embedding' reads more"),
    ({'methods': {'x': {'name': 'srrl'}}}, "'srrl' reads more"),
    ({'methods': {'x': {'name': 'dml'}}}, "'dml'"),
    (
      {'methods': {'x': {**AT, 'name': 'fitnets'}}},
      "'fitnets' has several phases",
    ),
    (
      {
        'augment': {'name': 'regularized', 'mix': {'name': 'mixup'}},
        'methods': {'x': {'name': 'kd'}},
      },
      'the augmentation mixes images',
    ),
  ],
)
def test_a_row_that_needs_more_than_outputs_for_views_is_refused(
  changes, words, keys
):
  with pytest.raises(UsageError, match=f'^x: .*{words}') as error:
    build.plan({**keys, **changes})
  assert '\n' not in str(error.value)
  assert 'set cache_teacher=False' in str(error.value)
  # Only a user who wants it is refused.
  plan = build.plan({**keys, **changes, 'cache_teacher': 'auto', 'epochs': 40})
  assert plan.rows[-1].views is None


def test_auto_stores_outputs_where_that_saves_time(keys, monkeypatch):
  def chosen(**changes):
    plan = build.plan({**keys, 'cache_teacher': 'auto', **changes})
    return plan.rows[-1].views, plan.notes[-1]

  same = {'augment': {'name': 'none'}}
  # Seeds may be added to a run, which must not change what it does.
  for seeds in (1, 5):
    views, note = chosen(epochs=1, seeds=seeds, **same)
    assert views is None and 'each image is used only once' in note
  views, note = chosen(epochs=100, **same)
  assert views is None and 'save only a few seconds' in note
  monkeypatch.setattr(teacher_cache, 'LEAST_SAVED', 0)
  views, note = chosen(epochs=100, seeds=2, **same)
  assert views.per_image == 1
  assert 'for one view of each of 48 images' in note
  assert 'each view is used about 200 times' in note
  # Students would see fewer images than without stored outputs.
  views, note = chosen(epochs=100)
  assert views is None and 'because the augmentation is random' in note
  wide = {'name': 'network_for_tests:net', 'width': 64}
  views, note = chosen(epochs=100, student=wide)
  assert views is None and '% of a step' in note
  monkeypatch.setattr(teacher_cache, 'LARGEST', 100)
  views, note = chosen(epochs=100)
  assert views is None and 'would need files of 0.3 kB' in note


def test_vectors_of_several_teachers_are_stored_for_images_without_labels(
  flat, planned, tmp_path
):
  paths = []
  for i in range(2):
    paths.append(str(tmp_path / f'teacher{i}.safetensors'))
    files.save(paths[i], model_of(3 + i, i, channels=3))
  plan = planned(
    flat,
    teacher=paths,
    student='resnet8',
    out=tmp_path / 'out',
    cache_teacher=2,
  )
  row = row_of(plan, 'embedding')
  outputs = column(plan, row, tmp_path)
  size = len(plan.dataset.splits['train']['image'])
  assert outputs.shape == (size, 2, 6) and outputs.dtype == np.float16
  assert np.abs(outputs.std((0, 1))).min() > 0


def test_streamed_images_come_with_outputs_from_files(folder, keys, tmp_path):
  file = tmp_path / 'teacher.safetensors'
  files.save(file, model_of(2, channels=3))
  plan = build.plan(
    {
      **keys,
      'data': {
        'name': 'images',
        'path': str(folder),
        'stream': True,
        'validation': 4,
      },
      'teacher': {'checkpoint': str(file)},
      'batch_size': 8,
      'workers': 0,
    }
  )
  row = row_of(plan)
  outputs = column(plan, row, tmp_path)
  assert isinstance(outputs, StoredColumn)
  dataset = teacher_cache.with_column(plan.dataset, outputs, {'train'})
  batches = streaming.StreamedBatches(
    dataset.splits['train'], 8, (0,), workers=0
  )
  batch = batches(0)
  index = dataset.splits['train']['index']
  rows = [int(np.flatnonzero(index == i)[0]) for i in batch['index']]
  np.testing.assert_array_equal(batch['teacher_outputs'], outputs[rows])
  batches.close()


def test_the_user_may_accept_fewer_images_than_the_augmentation_makes(keys):
  for augment, count in (('none', 1), ('crop_flip', teacher_cache.VIEWS)):
    changes = {'augment': {'name': augment}, 'cache_teacher': True}
    plan = build.plan({**keys, **changes})
    assert plan.rows[-1].views.per_image == count


@pytest.fixture(scope='module')
def many_keys(keys, arrays, tmp_path_factory):
  """The keys of a config with 12 classes, whose files hold 4 scores."""
  folder = tmp_path_factory.mktemp('many')
  labels = {'train_label': np.arange(64) % 12, 'test_label': np.arange(30) % 12}
  np.savez(folder / 'data.npz', **arrays(**labels))
  files.save(folder / 'teacher.safetensors', model_of(12))
  return {
    **keys,
    'data': {**keys['data'], 'path': str(folder / 'data.npz')},
    'teacher': {'checkpoint': str(folder / 'teacher.safetensors')},
    'cache_top_k': 4,
  }


def test_the_largest_scores_teach_as_if_the_rest_were_even(many_keys, tmp_path):
  plan = build.plan(many_keys)
  row = plan.rows[-1]
  assert 'the 4 largest of 12 scores' in plan.notes[-1]
  assert row.views.outputs.shape == (48, COUNT, 9)
  assert row.resolved['cache_top_k'] == 4
  stored = column(plan, row, tmp_path)
  assert stored.dtype == np.uint16
  # At the temperature of KD, the largest probabilities are the teacher's.
  dense = np.asarray(top_scores.unpacked(stored, row.views.top))
  whole = build.plan({**many_keys, 'cache_top_k': None})
  scores = column(whole, row_of(whole, dtype=np.float32), tmp_path)
  largest = np.argsort(-scores, -1)[..., :4]
  read, expected = (
    np.take_along_axis(scipy.special.softmax(x / 4, -1), largest, -1)
    for x in (dense, scores)
  )
  np.testing.assert_allclose(read, expected, atol=1e-3)
  assert len([*(tmp_path / teacher_outputs.FOLDER).iterdir()]) == 2
  # A student learns the same from these files as from the dense scores.
  without = Model(plan.teacher.network, {})
  students = trained(plan, row, stored, without)
  others = trained(whole, row_of(whole, dtype=np.float32), dense, without)
  for x, y in zip(students, others):
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)
  # A file with other numbers is noticed.
  (path,) = (
    path for path in tmp_path.rglob('*.npy') if np.load(path).dtype == np.uint16
  )
  changed = stored.copy()
  changed[..., 4] += 3000  # the number that stands for the other classes
  np.save(path, changed)
  with pytest.raises(UsageError, match='delete this folder'):
    column(plan, row, tmp_path)


def joint(*temperatures):
  """The section of a method that joins terms of several temperatures."""
  terms = {
    f'term{i}': {'name': 'kd', 'temperature': temperature}
    for i, temperature in enumerate(temperatures)
  }
  return {'name': 'joint', 'terms': terms}


@pytest.mark.parametrize(
  ('method', 'temperature'),
  [
    (joint(4.0), 4.0),
    (joint(2.0, 2.0), 2.0),
    ({'name': 'dist', 'tau': 3.0}, 3.0),
    ({'name': 'refinery'}, 1.0),
  ],
)
def test_the_largest_scores_are_kept_for_the_temperature_of_the_terms(
  method, temperature, many_keys
):
  plan = build.plan({**many_keys, 'methods': {'x': method}})
  assert plan.rows[-1].views.top.temperature == temperature


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (
      {'methods': {'x': joint(2.0, 4.0)}},
      'terms of one temperature.* got 2, 4',
    ),
    ({'cache_top_k': 6}, 'expected at most 5 of 12 classes'),
    ({'cache_top_k': 0}, 'at least 1'),
    ({'cache_teacher': False}, 'expected cache_teacher with it'),
    (
      {
        'task': {'name': 'embedding'},
        'methods': {'x': {'name': 'embedding'}},
      },
      "expected a teacher that gives scores of classes .* 'embedding'",
    ),
  ],
)
def test_scores_that_cannot_be_stored_are_refused(changes, words, many_keys):
  with pytest.raises(UsageError, match=f'cache_top_k: .*{words}') as error:
    build.plan({**many_keys, **changes})
  assert '\n' not in str(error.value)


def test_several_processes_compute_the_teacher_in_each_step(plan, monkeypatch):
  monkeypatch.setattr(
    teacher_cache, 'hosts', types.SimpleNamespace(alone=lambda: False)
  )
  row = row_of(plan)
  words = teacher_cache._obstacle(plan, row, row.views)
  assert words == 'several processes take part'


def test_a_task_that_changes_the_images_computes_the_teacher_in_each_step(plan):
  task = plan.task._replace(prepare=lambda rng, batch: batch)
  row = row_of(plan)
  words = teacher_cache._obstacle(plan._replace(task=task), row, row.views)
  assert words == "the task 'classification' changes the images in each step"


def test_a_phase_of_several_programs_might_read_the_teacher_in_any(plan):
  row = row_of(plan)
  training = types.SimpleNamespace(batch_size=16)

  def phase(carry, **changes):
    return row.method[0](carry)._replace(**changes)

  def several(carry):
    return phase(carry, static=lambda step: step % 2)

  methods = [
    teacher_cache._method_of_outputs(
      plan, lambda views, build=build: (build,), training, row.views
    )
    for build in (phase, several)
  ]
  assert methods == [(phase,), None]


def test_the_key_of_the_files_takes_numbers_of_any_type(plan):
  row = row_of(plan)
  names = ('mean', 'std')
  arrays = {name: np.asarray(getattr(plan.dataset, name)) for name in names}
  other = plan._replace(dataset=plan.dataset._replace(**arrays))
  keys = [teacher_outputs._key(p, row, plan.teacher) for p in (plan, other)]
  assert keys[0] == keys[1]
