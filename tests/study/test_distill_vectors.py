"""One call with tasks without targets."""

import pathlib

from flax import nnx
import jax
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.networks import graph, layers
from jaxdistill.study import build, config, measurements, results
from jaxdistill.tasks import probing
from jaxdistill.training.distributed import sharding

HUB = pathlib.Path(__file__).parents[1] / 'networks/hub_fixtures'


def model_of(outputs):
  network = Network(
    (
      Stage('stem', layers.ConvUnit(4, stride=2)),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(outputs)),
    )
  )
  image = {'image': jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)}
  return Model(network, graph.init(network, jax.random.key(0), image))


def test_a_teacher_that_gives_vectors_is_distilled_without_labels(
  flat, folder, tmp_path, planned
):
  network, variables = model_of(7)
  vectors = Model(jd.networks.EDITS['pooled'](network), variables)
  plan = planned(flat, teacher=vectors, student='resnet8', out=tmp_path)
  assert [row.label for row in plan.rows] == ['embedding']
  assert plan.task.name == 'embedding'
  assert plan.networks['student'].stages[-1].module.num_classes == 4
  plan = planned(folder, teacher=vectors, student='resnet8', out=tmp_path / 'l')
  assert plan.task.name == 'embedding'
  assert [row.label for row in plan.rows] == ['labels only', 'embedding']
  rates = [row.resolved['schedule']['rate'] for row in plan.rows]
  assert 5 * rates[0] == pytest.approx(rates[1])
  swept = {'name': 'supervised_vectors', 'sweep': {'keys': {'epochs': [1, 2]}}}
  with pytest.raises(jd.UsageError, match=r'^x: .* by cosine, .* labels alone'):
    build.plan({**plan.config, 'methods': {'x': swept}})
  keys = {'teacher': vectors, 'out': tmp_path / 'n', 'baseline': False}
  plan = planned(folder, student='resnet8', **keys)
  assert [row.label for row in plan.rows] == ['embedding']


def test_vectors_are_compared_with_those_of_a_student_that_learned_labels(
  folder, tmp_path
):
  network, variables = model_of(7)
  teacher = Model(jd.networks.EDITS['pooled'](network), variables)
  outcome = jd.distill(
    folder,
    teacher=teacher,
    student=model_of(2).network,
    out=tmp_path,
    epochs=1,
    seeds=1,
    batch_size=8,
    formats=(),
    show=False,
  )
  alone, distilled = outcome.results['rows']
  first, second = (row['seeds']['0'] for row in (alone, distilled))
  assert first['test']['last'].keys() == {*probing.NAMES}
  assert second['test']['last'].keys() == {'cosine', *probing.NAMES}
  assert second['beside'].keys() == {'untrained student', 'teacher'}
  assert not first['beside']
  # The cosine compares the student with its teacher already.
  assert first['agreement'] is None and second['agreement'] is None
  # The measured accuracies are those of the network without its classifier.
  row = outcome.plan.rows[0]
  model = results.trained(outcome.plan, row, 0, tmp_path)['last']
  assert graph.stage_names(model.network)[-1] == 'pool'
  splits = outcome.plan.dataset.splits
  of_splits = []
  for name in ('train', 'test'):
    raw = {'image': splits[name]['image']}
    image = outcome.plan.preprocess(jax.random.key(0), raw)['image']
    of_splits += [graph.apply(*model, image), splits[name]['label']]
  assert probing.probes(*map(np.asarray, of_splits)) == pytest.approx(
    first['test']['last']
  )
  for name in probing.NAMES:
    assert f'embedding, {name}: UNCLEAR' in outcome.verdict
  page = outcome.report.read_text()
  assert 'by its test accuracies knn and linear' in page
  table = str(outcome)
  assert 'labels only' in table and 'embedding: untrained student' in table


def test_a_pretrained_tower_is_distilled_by_its_vectors(
  flat, tmp_path, planned
):
  plan = planned(flat, teacher=HUB / 'dinov2', student='resnet8', out=tmp_path)
  assert [row.label for row in plan.rows] == ['embedding']
  assert plan.networks['student'].stages[-1].module.num_classes == 16


def test_a_classifier_teaches_its_pooled_feature_on_request(
  flat, tmp_path, planned, capsys
):
  plan = planned(
    flat,
    teacher=model_of(7),
    student='resnet8',
    method='embedding',
    out=tmp_path,
    show=True,
  )
  # A single teacher's vectors are standardised too.
  stages = {s.name: s.module for s in plan.teacher.network.stages}
  assert [*stages] == ['teacher1', 'teacher1_vector', 'vectors']
  assert stages['teacher1'].network.outputs == ('pool',)
  assert plan.networks['student'].stages[-1].module.num_classes == 4
  lines = capsys.readouterr().err
  assert 'method: embedding, as you chose' in lines
  assert 'no labels' in lines and 'score: cosine' in lines
  kept = build.plan(config.load(str(tmp_path / 'config.py')))
  assert [r.resolved for r in kept.rows] == [r.resolved for r in plan.rows]


class Tower(nnx.Module):
  """A teacher whose layers have no names."""

  def __init__(self, rngs):
    self.head = nnx.Linear(3, 5, rngs=rngs)

  def __call__(self, x):
    return self.head(x.mean((1, 2)))


@pytest.mark.parametrize(
  ('teacher', 'says'),
  [
    (Tower(nnx.Rngs(0)), True),
    (model_of(7), False),
    (HUB / 'dinov2', False),
    (HUB / 'dinov2_classifier', True),
  ],
  ids=['nnx', 'blocks', 'tower', 'classifier'],
)
def test_a_call_says_if_the_outputs_of_a_teacher_count_as_vectors(
  teacher, says, flat, tmp_path, planned, capsys
):
  planned(
    flat,
    teacher=teacher,
    student='resnet8',
    method='embedding',
    out=tmp_path,
    show=True,
  )
  assert ("vectors: the teacher's outputs" in capsys.readouterr().err) == says


def test_the_section_of_a_program_is_a_teacher_whose_outputs_count_as_vectors(
  flat, tmp_path, planned, capsys
):
  keys = {'student': 'resnet8', 'method': 'embedding', 'show': True}
  plan = planned(flat, teacher=Tower(nnx.Rngs(0)), out=tmp_path / 'a', **keys)
  whole = plan.config['teacher']
  (section,) = whole['joined']
  assert section['name'] == 'program'
  capsys.readouterr()
  again = planned(flat, teacher=section, out=tmp_path / 'b', **keys)
  assert "vectors: the teacher's outputs" in capsys.readouterr().err
  assert again.config['teacher'] == whole
  same = planned(flat, teacher=whole, out=tmp_path / 'c', **keys)
  assert same.config['teacher'] == whole
  assert again.networks['student'].stages[-1].module.num_classes == 5


def test_the_column_of_the_teacher_scores_the_teacher_as_perfect(
  folder, tmp_path, planned
):
  mesh = sharding.make_mesh()
  plan = planned(
    folder,
    teacher=model_of(2),
    student='resnet8',
    method='embedding',
    out=tmp_path,
  )
  whole = measurements.with_teacher(plan, mesh)
  splits = whole.dataset.splits
  assert 'teacher' not in splits['train']
  assert splits['validation']['teacher'].shape == (3, 4)
  assert measurements.is_probed(whole)
  test = measurements._tested(whole, whole.teacher, mesh)
  assert test['cosine'] == pytest.approx(1, abs=1e-6)
  assert all(0 <= test[name] <= 1 for name in probing.NAMES)
  labelled = planned(folder, teacher=model_of(2), out=tmp_path / 'kd')
  assert measurements.with_teacher(labelled, mesh) is labelled
  assert not measurements.is_probed(labelled)


def test_a_task_without_targets_needs_a_trained_teacher_of_its_outputs(
  folder, tmp_path, planned
):
  with pytest.raises(jd.UsageError, match='expected a trained teacher'):
    planned(folder, teacher='resnet8', method='embedding', out=tmp_path)
  student = {'name': 'resnet8', 'num_classes': 5}
  with pytest.raises(jd.UsageError, match=r'shape \(4,\).*\(5,\)'):
    planned(
      folder,
      teacher=model_of(2),
      student=student,
      method='embedding',
      out=tmp_path,
    )
  assert not [*tmp_path.iterdir()]


def test_vectors_are_not_taken_for_scores_of_classes(flat, tmp_path, planned):
  network, variables = model_of(7)
  vectors = Model(jd.networks.EDITS['pooled'](network), variables)
  with pytest.raises(jd.UsageError, match=r"expected 'embedding'.*got 'kd'"):
    planned(flat, teacher=vectors, student=0.5, out=tmp_path, method='kd')
  # A student that learned vectors says so in its file.
  about = {'class_scores': False}
  jd.save(tmp_path / 'student.safetensors', model_of(7), about)
  plan = planned(flat, teacher=tmp_path / 'student.safetensors', out=tmp_path)
  assert plan.task.name == 'embedding'
