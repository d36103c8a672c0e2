"""Tasks without targets, and what probes of their vectors measure."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model, neighbors, preprocessing

import jaxdistill as jd
from jaxdistill import objectives, tasks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import TEACHER
from jaxdistill.networks import layers
from jaxdistill.networks.surgery import pooling
from jaxdistill.study import report
from jaxdistill.tasks import probing

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(6, 5)).astype(np.float32)
TEACHERS = RNG.normal(size=(6, 5)).astype(np.float32)
BOTH = (tasks.embedding(), tasks.imitation())
METHODS = jd.methods


def network(outputs, width=4):
  return jd.Network(
    (
      jd.Stage('stem', layers.ConvUnit(width)),
      jd.Stage('pool', layers.Pool()),
      jd.Stage('head', layers.Classifier(outputs)),
    )
  )


def recipe(task):
  image = RNG.integers(0, 256, (8, 4, 4, 1), np.uint8)
  columns = {'image': image, 'index': np.arange(8, dtype=np.int32)}
  splits = dict.fromkeys(('train', 'test'), columns)
  dataset = jd.Dataset(splits, 0, (0.0,), (255.0,))
  return jd.recipe(dataset, task, epochs=1, batch_size=4)


def test_an_embedding_is_scored_by_the_mean_cosine():
  task = tasks.embedding()
  column = np.asarray(task.predict(jnp.array(TEACHERS), {}))
  rows = task.statistics(jnp.array(3 * OUTPUTS), {TEACHER: column})
  lengths = np.linalg.norm(OUTPUTS, axis=1) * np.linalg.norm(TEACHERS, axis=1)
  expected = ((OUTPUTS * TEACHERS).sum(1) / lengths).mean()
  score = task.summarize({k: np.asarray(v) for k, v in rows.items()})
  assert score['cosine'] == pytest.approx(expected, abs=1e-6)
  student = task.predict(jnp.array(OUTPUTS), {})
  assert task.agreement(np.asarray(student), column) == pytest.approx(
    expected, abs=1e-6
  )
  assert task.agreement(column, column) == pytest.approx(1, abs=1e-6)


def test_an_imitation_is_scored_by_equal_classes():
  task = tasks.imitation()
  column = np.asarray(task.predict(jnp.array(TEACHERS), {}))
  rows = task.statistics(jnp.array(OUTPUTS), {TEACHER: column})
  expected = (OUTPUTS.argmax(1) == TEACHERS.argmax(1)).mean()
  score = task.summarize({k: np.asarray(v) for k, v in rows.items()})
  assert score['same_class'] == pytest.approx(expected)


@pytest.mark.parametrize('task', BOTH, ids=lambda task: task.name)
def test_a_task_without_targets_refuses_what_needs_labels(task):
  for method in (METHODS.supervised, METHODS.at, METHODS.kd):
    with pytest.raises(UsageError, match='expected a task with targets'):
      method(recipe(task))
  METHODS.at(recipe(task), label_weight=0.0)
  with pytest.raises(UsageError, match='no loss without a teacher'):
    task.loss(OUTPUTS, {})
  with pytest.raises(UsageError, match="the column 'teacher'"):
    task.statistics(OUTPUTS, {'image': OUTPUTS})


def test_a_network_with_pooled_output_gives_what_its_last_stage_reads():
  assert pooling.pooled(network(3)).outputs == ('pool',)
  assert pooling.pooled(network(3), feature='stem').outputs == ('stem',)
  with pytest.raises(UsageError, match=r"'pol'.*pool"):
    pooling.pooled(network(3), feature='pol')
  with pytest.raises(UsageError, match='several stages'):
    pooling.pooled(jd.Network(network(3).stages[:1]))


@pytest.mark.parametrize(
  ('loss', 'student', 'adapters'),
  [
    ('cosine', 7, 0),
    ('smooth_l1', 7, 0),
    ('cosine', 6, 1),
    ('relational', 6, 0),
  ],
)
def test_an_adapter_is_needed_only_where_vectors_differ_in_length(
  loss, student, adapters
):
  pair = objectives.pair_of(
    network(student), pooling.pooled(network(3, 7)), recipe(tasks.embedding())
  )
  term = objectives.embedding(loss=loss)(pair)
  assert len(term.adapters) == adapters
  features = {
    'embedding': OUTPUTS[:4, :1],
    'student/head': OUTPUTS[:4],
    'teacher/pool': OUTPUTS[:4],
  }
  if not adapters:
    value = np.mean(term.loss(features, {}, {}))
    assert value == pytest.approx(0, abs=1e-6)


def test_classifiers_are_compared_by_their_pooled_features():
  columns = {'image': np.zeros((8, 4, 4, 1), np.uint8), 'label': np.arange(8)}
  splits = {'train': columns, 'test': columns}
  dataset = jd.Dataset(splits, 8, (0.0,), (255.0,))
  labelled = jd.recipe(dataset, epochs=1, batch_size=4)
  for teacher in (network(3, 7), pooling.pooled(network(3, 7))):
    pair = objectives.pair_of(network(8), teacher, labelled)
    (adapter,) = objectives.embedding()(pair).adapters
    assert adapter.inputs == ('student/pool',) and adapter.module.size == 7
  with pytest.raises(UsageError, match=r"got \[4, 4, 4\] for 'stem'"):
    objectives.embedding(feature_pairs=(('stem', 'pool'),))(pair)
  with pytest.raises(UsageError, match=r"'cosin'.*cosine"):
    objectives.embedding(loss='cosin')


@pytest.fixture(scope='module')
def clusters():
  """Vectors of three overlapping classes."""
  centre = RNG.normal(size=(3, 8))
  label = np.arange(240) % 3
  vectors = centre[label] + RNG.normal(size=(240, 8)) * 1.5 + 1
  return vectors[:160], label[:160], vectors[160:], label[160:]


@pytest.mark.parametrize('count', [1, 20, 160, 500])
def test_nearest_neighbours_are_those_of_scikit_learn(count, clusters):
  train, train_label, test, test_label = clusters
  train, test = (preprocessing.normalize(x) for x in (train, test))
  reference = neighbors.KNeighborsClassifier(
    min(count, 160),
    weights=lambda d: np.exp((1 - d) / 0.07),
    metric='cosine',
    algorithm='brute',
  ).fit(train, train_label)
  expected = reference.score(test, test_label)
  accuracy = probing.knn_accuracy(*clusters, neighbors=count)
  assert accuracy == pytest.approx(expected, abs=1e-9)
  assert 0.4 < accuracy < 1


def test_a_linear_probe_is_a_logistic_regression(clusters):
  train, train_label, test, test_label = clusters
  scaler = preprocessing.StandardScaler().fit(train)
  reference = linear_model.LogisticRegression(max_iter=200)
  reference.fit(scaler.transform(train), train_label)
  expected = reference.score(scaler.transform(test), test_label)
  assert probing.linear_accuracy(*clusters) == pytest.approx(expected)
  probes = probing.probes(*clusters)
  assert tuple(probes) == probing.NAMES and probes['linear'] == expected


def test_probes_survive_one_class_and_constant_vectors():
  ones, label = np.ones((6, 3)), np.array([0, 1, 0, 1, 0, 1])
  probes = probing.probes(ones, label, ones, label)
  assert all(0 <= value <= 1 for value in probes.values())
  assert probing.linear_accuracy(ones, 0 * label, ones, label) == 0.5


def test_the_table_has_columns_for_probes():
  tests = {'cosine': 0.5, 'knn': 0.25, 'linear': 0.75}
  seed = {'test': {'last': tests}, 'parameters': 3, 'agreement': 0.5}
  others = {'teacher': {'test': {'last': tests}, 'parameters': 9}}
  seed |= {'steps': 1, 'seconds': 1.0, 'beside': others}
  rows = [{'label': 'a', 'config': {}, 'seeds': {'0': seed}}]
  results = {'rows': rows, 'score': 'cosine', 'percent': False}
  assert 'knn' not in report.as_text(results)
  lines = report.as_text({**results, 'probes': ['knn', 'linear']}).splitlines()
  assert 'test knn, last | test linear, last' in lines[0]
  assert '0.5000' in lines[2] and '25.00' in lines[2] and '75.00' in lines[3]
