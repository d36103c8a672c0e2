"""No room but the task assumes labels, one output, or that higher is better."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import objectives
from jaxdistill.analysis import curves
from jaxdistill.core.checks import UsageError
from jaxdistill.networks import graph, layers
from jaxdistill.study import load, report, verdicts
from jaxdistill.training import log

RNG = np.random.default_rng(0)
LOWER = jd.Metric('error', higher=False, percent=False)
SILENT = jd.FitOptions(log=log.Log(show=False))


def dataset(**columns):
  """Images without labels, whose target is their mean colour."""
  image = RNG.integers(0, 256, (24, 4, 4, 3), np.uint8)
  split = {
    'image': image,
    'index': np.arange(24, dtype=np.int32),
    'colour': image.mean((1, 2)).astype(np.float32) / 255,
    **columns,
  }
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  return jd.Dataset(splits, 0, (0.0,) * 3, (255.0,) * 3)


def error(outputs, batch):
  """Reads both outputs of `network`."""
  distance = jnp.abs(outputs['colour'] - batch['colour']).mean(-1)
  return distance + 0.1 * jnp.abs(outputs['aside']).mean(-1)


def regression(**changes):
  task = jd.Task(
    'regression',
    loss=error,
    statistics=lambda outputs, batch: {'error': error(outputs, batch)},
    summarize=lambda rows: {'error': float(np.mean(rows['error']))},
    progress=lambda outputs, batch: {'error': error(outputs, batch).mean()},
    predict=lambda outputs, batch: outputs['colour'],
    agreement=lambda student, teacher: (
      1 - float(np.abs(student - teacher).max())
    ),
    score=LOWER,
    targets=('colour',),
    class_scores=False,
  )
  return task._replace(**changes)


def network(outputs=('colour', 'aside')):
  stages = (
    jd.Stage('pool', layers.Pool()),
    jd.Stage('colour', layers.Classifier(3)),
    jd.Stage('aside', layers.Classifier(2), ('pool',)),
  )
  return jd.Network(stages, outputs)


def recipe(**options):
  return jd.recipe(dataset(), regression(), epochs=2, batch_size=8, **options)


def test_the_output_is_that_of_the_last_stage_or_what_the_network_names():
  features = {'colour': 1, 'aside': 2, 'pool': 3}
  assert jd.networks.output(network(()), features) == 2
  assert jd.networks.output(network(('pool',)), features) == 3
  both = {'colour': 1, 'aside': 2}
  assert jd.networks.output(network(), features) == both
  mains = [jd.networks.main_output(network(x)) for x in ((), ('pool', 'aside'))]
  assert mains == ['aside', 'pool']


@pytest.mark.parametrize('outputs', [(), ('aside', 'colour')])
def test_a_description_keeps_the_outputs(outputs):
  description = jd.networks.to_description(network(outputs))
  assert jd.networks.from_description(description) == network(outputs)


def test_a_description_with_outputs_that_are_no_names_is_refused():
  description = jd.networks.to_description(network())
  for outputs in ('colour', [1], None):
    with pytest.raises(UsageError, match='names of its outputs'):
      jd.networks.from_description({**description, 'outputs': outputs})


def test_an_output_cannot_be_spliced_away():
  model = jd.Model(network(), {})
  part = jd.Model(jd.Network(model.network.stages[:1]), {})
  assert graph.splice(model, 'pool', 'pool', part).network == network()
  with pytest.raises(UsageError, match=r"the task reads replaced .'aside'"):
    graph.splice(model, 'aside', 'aside', part)


def test_data_without_labels_pass_through_training_and_evaluation():
  settings = recipe()
  models = {
    role: jd.new_model(network(), settings, seed=seed)
    for role, seed in (('student', 0), ('teacher', 1))
  }
  terms = {'logits': jd.objectives.logits()}
  method = jd.methods.joint(settings, terms=terms)
  fitted = jd.fit(method, models, dataset(), options=SILENT)
  assert fitted.steps == 6
  metrics = jd.evaluate(fitted.carry['student'], dataset(), task=regression())
  assert 0 < metrics['error'] < 2


def test_a_task_refuses_data_without_its_targets():
  with pytest.raises(
    UsageError, match=r"'label', .*'classification' .* colour"
  ):
    jd.recipe(dataset(), epochs=1, batch_size=8)
  with pytest.raises(UsageError, match="'depth', which the task 'regression'"):
    jd.recipe(
      dataset(), regression(targets=('colour', 'depth')), epochs=1, batch_size=8
    )
  with pytest.raises(UsageError, match=r"a Metric as score, .* got 'error'"):
    jd.recipe(dataset(), regression(score='error'), epochs=1, batch_size=8)


@pytest.mark.parametrize(
  'name', ['dkd', 'dist', 'crd', 'srrl', 'kd', 'refinery']
)
def test_an_objective_that_needs_classes_names_the_task_that_has_none(name):
  settings = recipe()
  objective = getattr(objectives, name)()
  pair = objectives.pair_of(network(), network(), settings)
  with pytest.raises(UsageError, match=f"^{name}: .* got 'regression'$"):
    objective(pair)


@pytest.mark.parametrize('name', ['dml', 'zero_shot'])
def test_a_method_that_needs_classes_names_the_task_that_has_none(name):
  with pytest.raises(UsageError, match=f"^{name}: .* got 'regression'$"):
    getattr(jd.methods, name)(recipe())


def test_every_column_enters_the_checksum_of_the_data():
  sums = {
    load.checksum(dataset(depth=np.full((24, 4, 4), depth)))
    for depth in (0.0, 1.0)
  }
  assert len(sums) == 2


def test_lower_scores_help_if_lower_is_better():
  scores, reference = (0.30, 0.31, 0.32), (0.50, 0.51, 0.52)
  verdict = verdicts.verdict(scores, reference, score=LOWER)
  assert verdict.word == 'HELPS'
  assert verdicts.verdict(reference, scores, score=LOWER).word == 'HURTS'
  assert verdicts.sentence(verdict).startswith(
    '-0.2000 error (lower is better), and 3 seeds resolve'
  )


def test_a_report_shows_a_score_that_is_no_fraction_as_it_is():
  seeds = {
    str(i): {
      **{'parameters': 9, 'agreement': 0.5, 'steps': 1, 'seconds': 1.0},
      'test': {'last': {'error': value}},
    }
    for i, value in enumerate((1.25, 1.75))
  }
  rows = [{'label': 'kd', 'config': {'student': {}}, 'seeds': seeds}]
  results = {'rows': rows, **report.about_score(LOWER)}
  assert report.score_of(results) == LOWER
  text = report.as_text(results)
  assert '1.5000 ± 0.3536' in text
  assert '50.00' in text  # the agreement is a fraction whatever the score
  points = curves.points(results, {1: 'kd'})
  assert points[0].mean == 1.5


def test_every_trace_of_a_score_in_old_results_means_a_fraction():
  assert report.score_of({'score': 'top1'}) == jd.Metric('top1')
  assert jax.tree.leaves(report.about_score(jd.Metric('top1'))) == [
    *(True, True, 'top1')
  ]
