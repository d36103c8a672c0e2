"""The search for a student: candidates, their qualities and the choice."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.data.transforms import augment
from jaxdistill.methods.neighbourhood import (
  forward,
  layouts,
  quality,
  student_search,
)
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import layerwise
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
BLOCKS = ('group1.block1', 'group2.block1')


def test_the_smallest_candidate_that_is_good_enough_is_chosen():
  scores = np.array([[0.5, 0.9, 0.89], [0.2, 0.3, 0.1]])
  sizes = np.array([[1, 3, 2], [1, 2, 3]])
  choose = functools.partial(quality.choose, scores, sizes, 0.9)
  # In the second row all lose more, so that the best one is chosen.
  assert choose(0.05) == [2, 1]
  assert choose(0.005) == [1, 1]
  assert choose(0.75) == [0, 0]


@pytest.fixture(scope='module')
def searched(recipe, carry, dataset, whole):
  """(the run up to the measurement of candidates, the whole run)."""
  base = {**carry, 'student': whole}
  one_batch = recipe.validation._replace(batch_size=10)
  method = student_search.student_search(
    recipe._replace(validation=one_batch),
    multipliers=(0.4, 1.0),
    drops=(0.01, 0.9),
    neighbourhood_epochs=1,
    statistics_steps=1,
  )
  measured = loop.fit(method[:3], base, dataset, options=SILENT)
  return measured, loop.fit(method[3:], measured.carry, dataset, options=SILENT)


def test_the_qualities_of_a_search_are_those_of_partial_models(
  searched, recipe, dataset
):
  """They are measured on the whole validation split, which is one batch."""
  measured, _ = searched
  report = measured.reports['student_search.json']
  teacher = measured.carry['teacher']
  raw = {k: jnp.asarray(v) for k, v in dataset.splits['validation'].items()}
  batch = augment.standardize(dataset.mean, dataset.std)(jax.random.key(0), raw)

  def accuracy(model):
    return float(
      (graph.apply(*model, batch['image']).argmax(-1) == batch['label']).mean()
    )

  assert report['teacher'] == pytest.approx(accuracy(teacher))
  example = {'image': recipe.example['image']}
  for role in ('k 0.4', 'k 1'):
    model = measured.carry[role]
    layout = layouts.layout(model.network, teacher.network, example)
    for i, name in enumerate(BLOCKS):
      partial = layouts.partial(layout, i, model, teacher)
      assert report['quality'][name][role] == pytest.approx(accuracy(partial))


def test_partial_outputs_are_those_of_each_partial_model(
  recipe, carry, batch, network, plan_of, assert_close
):
  example = {'image': recipe.example['image']}
  teacher = carry['teacher']
  students = {
    f'k {i}': Model(net, graph.init(net, jax.random.key(i), example))
    for i, net in enumerate((network(1, 1), network(2, 3), network(3, 4)))
  }
  layout = layouts.layout(students['k 0'].network, teacher.network, example)
  outputs = forward.partial_outputs(
    plan_of(recipe),
    layout,
    {**carry, **students},
    tuple(students),
    {'train': batch},
    jax.random.key(0),
  )
  for k, model in enumerate(students.values()):
    for i in range(2):
      partial = layouts.partial(layout, i, model, teacher)
      logits = graph.apply(*partial, batch['image'])
      assert_close(outputs['candidates'][i, k], logits, atol=1e-5)
  logits = graph.apply(*teacher, batch['image'])
  assert_close(outputs['teacher'], logits, atol=1e-5)
  assert len({*outputs['candidates'][:, :, 0, 0].ravel().tolist()}) == 6


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'look_ahead': (-1.0,)}, 'look_ahead: expected a number of at least 0'),
    ({'cut': (('stem', 'stem'),)}, 'at least two boundaries, got 1'),
    ({'form': 'row'}, "unknown form 'row'"),
  ],
)
def test_a_search_checks_the_arguments_of_its_neighbourhoods(
  recipe, carry, arguments, message, whole
):
  method = student_search.student_search(
    recipe, multipliers=(1.0,), **arguments
  )
  with pytest.raises(UsageError, match=message):
    method[0]({**carry, 'student': whole})


def test_the_students_of_a_search_consist_of_candidates(searched, assert_close):
  report = searched[0].reports['student_search.json']
  kept = searched[1].carry
  # Candidates have 3 or 1 channels in the first block, and 4 or 1 in the other.
  assert (
    report['parameters'][BLOCKS[0]]['k 1']
    > report['parameters'][BLOCKS[0]]['k 0.4']
  )
  smallest = report['chosen']['0.9']
  assert set(smallest.values()) == {'k 0.4'}
  for drop in ('0.01', '0.9'):
    model = kept[f'drop {drop}']
    for name, role in report['chosen'][drop].items():
      assert_close(
        model.variables['params'][name],
        kept[role].variables['params'][name],
        rtol=0,
        atol=0,
      )
  assert kept['student'].network == kept['drop 0.9'].network


def test_the_statistics_of_all_kept_students_are_re_estimated(
  searched,
):
  measured, ended = searched
  for role in ('k 0.4', 'k 1'):
    before, after = (x.carry[role].variables for x in (measured, ended))
    chex.assert_trees_all_equal(after['params'], before['params'])
    changed = jax.tree.map(
      lambda a, b: np.abs(a - b).max() > 0,
      after['batch_stats'],
      before['batch_stats'],
    )
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      {'multipliers': ()},
      'multipliers: expected at least one number, got none',
    ),
    ({'multipliers': (0.5, 0.5)}, 'multipliers: expected different numbers'),
    ({'drops': (1.5,)}, r'drops: expected a number in \(0, 1\), got 1.5'),
  ],
)
def test_invalid_candidates_or_drops_are_refused(recipe, arguments, message):
  with pytest.raises(UsageError, match=message):
    student_search.student_search(recipe, **arguments)


def test_a_search_without_validation_is_refused(recipe):
  with pytest.raises(
    UsageError, match=r'data\.validation: student_search needs'
  ):
    student_search.student_search(recipe._replace(validation_steps=0))


def test_a_multiplier_that_leaves_no_channel_is_refused(recipe, carry, whole):
  carry = {**carry, 'student': whole}
  method = student_search.student_search(recipe, multipliers=(0.1, 1.0))
  with pytest.raises(UsageError, match=r'leaves .* none of its 3'):
    method[0](carry)


def test_sparse_candidates_reach_their_sparsity_and_keep_it(
  recipe, carry, dataset, whole, assert_close
):
  """All begin as the teacher; zeros do not count as parameters."""
  base = {**carry, 'student': whole}
  method = student_search.student_search(
    recipe,
    sparsities=(0.0, 0.5),
    by_layers=True,
    drops=(0.9,),
    neighbourhood_epochs=2,
    statistics_steps=0,
  )
  start = loop.fit(method[:1], base, dataset, options=SILENT)
  kernel = layerwise.by_layers(carry['teacher']).variables['params']
  for role in ('sparsity 0', 'sparsity 0.5'):
    assert_close(start.carry[role].variables['params'], kernel, rtol=0, atol=0)
  fitted = loop.fit(method, base, dataset, options=SILENT)
  for role, sparsity in (('sparsity 0', 0.0), ('sparsity 0.5', 0.5)):
    params = fitted.carry[role].variables['params'][f'{BLOCKS[1]}.conv2']
    kernel = np.asarray(params['conv']['kernel'])
    assert abs((kernel == 0).mean() - sparsity) < 0.01
  report = fitted.reports['student_search.json']
  assert set(report['chosen']['0.9'].values()) == {'sparsity 0.5'}
