"""Segmentation and depth, from arrays to a report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

import jaxdistill as jd
from jaxdistill import methods, networks, objectives, study
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import IGNORE
from jaxdistill.losses.numerics import bilinear
from jaxdistill.networks import graph, layers
from jaxdistill.networks.surgery import dense_heads
from jaxdistill.objectives import pairs
from jaxdistill.study import examples, registry
from jaxdistill.tasks import depth, segmentation
from jaxdistill.training import loop

RNG = np.random.default_rng(0)
SIZE = (16, 16)


def squares(count=16, seed=0):
  """Images of a bright square on a dark ground, with their masks."""
  rng = np.random.default_rng(seed)
  mask = np.zeros((count, *SIZE), np.uint8)
  for i, (top, left) in enumerate(rng.integers(0, 8, (count, 2))):
    mask[i, top : top + 8, left : left + 8] = 1 + i % 2
  mask[:, 0] = IGNORE
  noise = rng.integers(0, 40, (count, *SIZE, 3))
  level = np.where(mask == IGNORE, 0, mask)[..., None] * 100
  return {'image': (level + noise).astype(np.uint8), 'mask': mask}


def dataset(**changes):
  columns = squares() | changes
  return jd.data.from_columns(
    columns, columns, label_names=('ground', 'grey', 'white'), validation=4
  )


def random_outputs(num_classes=3, size=(4, 4), count=5):
  logits = RNG.normal(size=(count, *size, num_classes)).astype(np.float32)
  return jnp.asarray(logits)


def upsampled(logits):
  """The classes at the size of the masks, by the library's own resizing."""
  return np.asarray(bilinear(logits, SIZE).argmax(-1))


@pytest.fixture(scope='module')
def measured():
  """(truth, predicted classes, metrics) of five images, one all ignored."""
  task, logits = segmentation(), random_outputs()
  mask = squares(5)['mask'].copy()
  mask[4] = IGNORE
  rows = jax.device_get(
    jax.jit(task.statistics)(logits, {'mask': jnp.asarray(mask)})
  )
  return mask, upsampled(logits), rows, task.summarize(rows)


def test_iou_and_accuracy_are_those_of_scikit_learn(measured):
  mask, predicted, _, metrics = measured
  truth, predicted = mask[mask != IGNORE], predicted[mask != IGNORE]
  expected = sklearn_metrics.jaccard_score(truth, predicted, average=None)
  for i, value in enumerate(expected):
    assert metrics[f'iou/{i}'] == pytest.approx(value)
  assert metrics['miou'] == pytest.approx(expected.mean())
  assert metrics['pixel_accuracy'] == pytest.approx(
    sklearn_metrics.accuracy_score(truth, predicted)
  )


def test_a_class_that_never_occurs_does_not_count(measured):
  *_, rows, metrics = measured
  wider = np.pad(rows['confusion'], ((0, 0), (0, 1), (0, 1)))
  summary = segmentation().summarize({**rows, 'confusion': wider})
  assert summary == metrics
  assert 'iou/3' not in summary


def test_an_image_without_classes_has_no_loss_and_no_gradient(measured):
  assert measured[2]['loss'][4] == 0
  mask = {'mask': jnp.full((1, *SIZE), IGNORE, jnp.uint8)}

  def loss(logits):
    return segmentation().loss(logits, mask).sum()

  value, gradient = jax.jit(jax.value_and_grad(loss))(random_outputs(count=1))
  assert value == 0
  assert not gradient.any()


def test_progress_on_the_whole_split_is_the_metric_of_the_split(measured):
  mask, predicted, _, metrics = measured
  logits = jax.nn.one_hot(predicted, 3)
  batch = {'mask': jnp.asarray(mask)}
  progress = jax.jit(segmentation().progress)(logits, batch)
  for name, value in progress.items():
    assert float(value) == pytest.approx(metrics[name])


def test_the_auxiliary_head_adds_its_share_of_the_loss():
  main, aux = random_outputs(), random_outputs()
  batch = {'mask': jnp.asarray(squares(5)['mask'])}
  parts = [segmentation().loss(x, batch) for x in (main, aux)]
  task = segmentation(auxiliary_weight=0.25)
  both = task.loss({'aux': aux, 'head': main}, batch)
  np.testing.assert_allclose(both, parts[0] + 0.25 * parts[1], rtol=1e-6)
  assert task.predict({'aux': aux, 'head': main}, {}).dtype == jnp.uint8


@pytest.mark.parametrize(
  'mask, words',
  [
    (np.full((16, *SIZE), 3, np.uint8), 'from 0 to 2, or 255 .*, got 3'),
    (np.full((16, *SIZE), -1, np.int32), 'from 0 to 2, or 255 .*, got -1'),
    (np.zeros((16, 8, 8), np.uint8), r'\[12, 16, 16\], .* got uint8 \[12, 8'),
    (np.zeros((16, *SIZE), np.float32), 'expected integers .* got float32'),
    (
      np.full((16, *SIZE), IGNORE, np.uint8) * np.eye(16, dtype=np.uint8),
      "at least two classes in the split 'train', got only the class 0; pix",
    ),
    (np.full((16, *SIZE), IGNORE), 'at least two classes .*, got none'),
  ],
)
def test_masks_that_do_not_suit_images_and_classes_are_refused(mask, words):
  with pytest.raises(UsageError, match=words):
    jd.recipe(dataset(mask=mask), segmentation(), epochs=1, batch_size=4)


def test_classes_that_training_never_sees_are_named():
  notes = segmentation().notes
  assert notes(dataset()) == ()
  mask = squares()['mask']
  (note,) = notes(dataset(mask=np.where(mask == 1, IGNORE, mask)))
  assert note == (
    "data: the training masks have no pixel of 1 of the 3 classes: 'grey'; "
    'pixels with 255 have no class'
  )


def test_masks_without_classes_are_refused():
  data = dataset()._replace(num_classes=0)
  with pytest.raises(UsageError, match='num_classes or label_names'):
    jd.recipe(data, segmentation(), epochs=1, batch_size=4)


def test_a_config_of_masks_without_classes_is_refused_by_the_task(plan):
  columns = squares()
  path = {'image': columns['image'], 'mask': columns['mask']}
  data = jd.data.from_columns(path, path)
  with pytest.raises(UsageError, match='expected num_classes or label_names'):
    study.plan(config(methods={'a': {'name': 'supervised'}}), data)


def test_a_network_that_gives_no_map_is_refused():
  mask = {'mask': jnp.zeros((2, 8, 8), jnp.uint8)}
  with pytest.raises(UsageError, match=r"such as 'fcn', got \[2, 3\]"):
    segmentation().loss(jnp.zeros((2, 3)), mask)


def test_a_score_that_does_not_exist_is_refused():
  with pytest.raises(UsageError, match="score 'mou'; did you mean 'miou'"):
    segmentation(score='mou')


DEPTHS = RNG.uniform(1, 9, (16, *SIZE)).astype(np.float32)


@pytest.mark.parametrize(
  'values, words',
  [
    (0 * DEPTHS, 'in the split .train., got 0 to 0'),
    (-DEPTHS, 'finite distances'),
    (DEPTHS * np.inf, 'got inf to inf'),
    (DEPTHS[:, :8], r'\[12, 16, 16\], .* got float32 \[12, 8'),
  ],
)
def test_depths_that_are_no_distances_are_refused(values, words):
  data = dataset(depth=values)
  with pytest.raises(UsageError, match=words):
    jd.recipe(data, depth(), epochs=1, batch_size=4)


def test_depth_metrics_are_means_over_known_pixels():
  true = DEPTHS[:3].copy()
  true[:, :4] = 0
  true[2] = 0
  maps = RNG.uniform(1, 9, (3, *SIZE, 1)).astype(np.float32)
  batch = {'depth': jnp.asarray(true)}
  rows = jax.jit(depth().statistics)(jnp.asarray(maps), batch)
  for i in range(2):
    known = true[i] > 0
    t, m = true[i][known], maps[i, ..., 0][known]
    expected = {
      'loss': np.abs(m - t).mean(),
      'rmse': np.sqrt(((m - t) ** 2).mean()),
      'abs_rel': (np.abs(m - t) / t).mean(),
      'delta1': (np.maximum(m / t, t / m) < 1.25).mean(),
    }
    for name, value in expected.items():
      assert float(rows[name][i]) == pytest.approx(value, rel=1e-5)
  assert all(float(row[2]) == 0 for row in rows.values())
  assert (depth().score.higher, depth().score.percent) == (False, False)


NETWORK = {
  'name': 'fcn',
  'network': {
    'name': 'cifar_resnet18',
    'stem_width': 2,
    'widths': (2, 2, 4, 4),
    'strides': (2, 2, 1, 1),
    'dilations': (1, 1, 2, 4),
  },
}


def config(**changes):
  return {
    'data': {'name': 'squares'},
    'task': {'name': 'segmentation'},
    'student': NETWORK,
    'teacher': {**NETWORK, 'auxiliary': True},
    'augment': {'name': 'scale_crop', 'size': (8, 8)},
    'batch_size': 4,
    'epochs': 1,
    **changes,
  }


@pytest.fixture
def plan(monkeypatch):
  monkeypatch.setitem(registry.DATASETS, 'squares', dataset)

  def build(methods, **changes):
    rows = {name: {'name': name} | keys for name, keys in methods.items()}
    return study.plan(config(methods=rows, **changes))

  return build


def test_methods_are_built_for_segmentation(plan):
  built = plan(
    {'supervised': {}, 'kd': {}, 'sskd': {'num_stages': 4}, 'distpro': {}}
  )
  assert built.image.shape == (1, *SIZE, 3)  # whole images are evaluated
  shapes = graph.shapes(built.networks['teacher'], {'image': built.image})
  maps = pairs.map_groups(built.networks['teacher'], shapes)
  assert maps == ['stem', *(f'group{i}' for i in range(1, 5))]
  outputs = graph.output(built.networks['teacher'], shapes)
  assert {k: x.shape for k, x in outputs.items()} == {
    'aux': (1, 4, 4, 3),
    'head': (1, 4, 4, 3),
  }


@pytest.mark.parametrize('name', ['dkd', 'dist', 'crd', 'srrl'])
def test_methods_that_need_classes_of_images_refuse_segmentation(plan, name):
  with pytest.raises(UsageError, match=f"{name}: .* got 'segmentation'"):
    plan({name: {}})


def test_a_mixture_of_images_is_refused_for_segmentation(plan):
  augment = {'name': 'regularized', 'mix': {'name': 'cutmix'}}
  with pytest.raises(UsageError, match="'cutmix' moves images, but not 'mask'"):
    plan({'supervised': {}}, augment=augment)


def test_kd_refuses_a_task_of_depths():
  data = dataset(depth=DEPTHS)
  recipe = jd.recipe(data, depth(), epochs=1, batch_size=4)
  network = registry.NETWORKS['resnet8'](num_classes=1)
  pair = objectives.pair_of(network, network, recipe)
  with pytest.raises(UsageError, match=r"^kd: .* got 'depth'$"):
    objectives.kd()(pair)


def test_npz_files_may_hold_masks_in_place_of_labels(tmp_path):
  columns = squares()
  path = tmp_path / 'squares.npz'
  parts = {f'{s}_{k}': v for s in ('train', 'test') for k, v in columns.items()}
  np.savez(path, **parts, label_names=np.array(['a', 'b', 'c']))
  data = jd.data.npz(str(path), validation=0)
  assert (data.num_classes, data.label_names) == (3, ('a', 'b', 'c'))
  for name in ('train', 'test'):
    assert set(data.splits[name]) == {'image', 'mask', 'index'}
    np.testing.assert_array_equal(data.splits[name]['mask'], columns['mask'])


def test_columns_that_do_not_match_are_refused():
  columns = squares()
  with pytest.raises(UsageError, match='train_mask: expected 16 rows'):
    jd.data.from_columns({**columns, 'mask': columns['mask'][:3]}, columns)
  with pytest.raises(UsageError, match='the same other columns'):
    jd.data.from_columns({'image': columns['image']}, columns)
  with pytest.raises(UsageError, match=r'train_image: expected uint8 \[N, H'):
    floats = {**columns, 'image': columns['image'].astype(np.float32)}
    jd.data.from_columns(floats, columns)


def test_stages_without_weights_in_the_initial_file_are_named(
  plan, monkeypatch, tmp_path
):
  monkeypatch.setitem(registry.NETWORKS, 'small', small)
  five = small(num_classes=5)
  shapes = graph.variable_shapes(five, {'image': jnp.zeros((1, *SIZE, 3))})
  ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
  networks.save(tmp_path / 'five.safetensors', jd.Model(five, ones))
  initial = {'name': 'pretrained', 'path': str(tmp_path / 'five.safetensors')}
  student = {'name': 'small'}
  built = plan(
    {'supervised': {}}, student=student, teacher=None, initial=initial
  )
  (note,) = built.notes
  assert note.startswith('student: ') and note.endswith('these are new: head')
  drawn = {'name': 'normal'}  # draws all kernels
  built = plan({'supervised': {}}, student=student, teacher=None, initial=drawn)
  assert not built.notes


def test_a_pytorch_file_without_a_network_is_refused_with_the_remedy(
  plan, tmp_path
):
  (tmp_path / 'resnet.pth').write_bytes(b'PK\x03\x04' + bytes(64))
  initial = {'name': 'pretrained', 'path': str(tmp_path / 'resnet.pth')}
  with pytest.raises(UsageError, match=r'needs the section initial\.network'):
    plan({'supervised': {}}, initial=initial)


def small(width: int = 2, *, num_classes: int = 3) -> jd.Network:
  """Two groups of maps; cheaper to compile than any ResNet."""
  groups = (
    jd.Stage('group1.block1', layers.ConvUnit(width, stride=2)),
    jd.Stage('group2.block1', layers.ConvUnit(2 * width)),
  )
  whole = jd.Network((*groups, jd.Stage('pool', layers.Pool())))
  return dense_heads.fcn(whole, num_classes=num_classes, dropout=0.0)


def test_segmentation_runs_from_a_config_to_a_report(
  plan, monkeypatch, tmp_path
):
  monkeypatch.setitem(registry.NETWORKS, 'small', small)
  built = plan({'supervised': {}}, student={'name': 'small'}, teacher=None)
  results = study.run(built, tmp_path, show=False)
  assert (results['score'], results['higher']) == ('miou', True)
  (seed,) = results['rows'][0]['seeds'].values()
  metrics = seed['test']['last']
  ious = [metrics[f'iou/{i}'] for i in range(3)]
  assert metrics['miou'] == pytest.approx(np.mean(ious))
  assert 0 <= metrics['pixel_accuracy'] <= 1
  assert seed['best_step'] is not None
  text = (tmp_path / 'report.html').read_text()
  assert 'test miou, last' in text
  # Four images, each with its truth and what the student predicts.
  assert '<h2>Predicted maps' in text
  assert text.count('<img src="data:image/png;base64,') == 4 * 3
  test = built.dataset.splits['test']
  truths = examples.read(tmp_path, 'truth')
  assert list(truths) == [0, 5, 10, 15]
  for row, truth in truths.items():
    np.testing.assert_array_equal(truth, test['mask'][row])


def test_a_distilled_segmenter_resumes_with_the_same_bits(tmp_path):
  data = dataset()
  augment = jd.data.scale_crop(size=(8, 8))
  recipe = jd.recipe(
    data, segmentation(), epochs=3, batch_size=4, augment=augment
  )
  start = {
    'student': jd.new_model(small(), recipe),
    'teacher': jd.new_model(small(), recipe, seed=1),
  }
  method = methods.joint(recipe, terms={'kd': objectives.pixel_kd()})

  def fit(directory, stop=10**6):
    calls = iter(range(10**6))
    options = jd.FitOptions(
      directory=str(directory), interrupted=lambda: next(calls) >= stop
    )
    return jd.fit(method, start, data, options=options).carry['student']

  whole = fit(tmp_path / 'whole')
  with pytest.raises(loop.Interrupted):
    fit(tmp_path / 'parts', stop=4)
  resumed = fit(tmp_path / 'parts')
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)
  before = start['student'].variables
  assert any(
    (x != y).any()
    for x, y in zip(*map(jax.tree.leaves, (before, whole.variables)))
  )
