"""Masked layers: the order of the phases, and what changes in each."""

import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage
from jaxdistill.methods.masked_layer.layer_phases import Layers
from jaxdistill.methods.masked_layer.mask_phases import Masks
from jaxdistill.methods.masked_layer.method import masked_layer
from jaxdistill.networks import NETWORKS, layers
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
SHARED = (('group1', 'group1'), ('group2', 'group2'))


def test_the_phases_have_the_expected_order_and_length(method, after_each):
  phases = [make(before.carry) for make, before in zip(method, after_each)]
  assert [(p.name, p.num_steps) for p in phases] == [
    ('start', 0),
    ('masks', 4),
    ('local', 8),
    ('local_statistics', 2),
    ('keep_layers', 0),
    ('kd', 4),
    ('labels', 2),
  ]


def test_the_mask_phase_changes_only_the_masks(
  after_each, changed, assert_same
):
  before, after = after_each[1], after_each[2]
  assert changed(before, after, 'masks') == {'group1', 'group2'}
  for role in ('student', 'teacher'):
    assert_same(before.carry[role].variables, after.carry[role].variables)


def test_the_local_phase_changes_only_the_groups(
  after_each, assert_same, changed
):
  before, after = after_each[2], after_each[3]
  groups = {'group1.conv1', 'group2.conv1'}
  assert changed(before, after) == groups
  assert changed(before, after, collection='batch_stats') == groups
  for role in ('masks', 'teacher'):
    assert_same(before.carry[role].variables, after.carry[role].variables)
  # Then their statistics change, and finally the whole student.
  assert changed(*after_each[3:5]) == set()
  assert changed(*after_each[3:5], collection='batch_stats') == groups
  assert changed(*after_each[5:7]) == groups | {'head'}
  assert changed(*after_each[6:8]) == groups | {'head'}
  assert_same(
    after_each[-1].carry['teacher'].variables, after.carry['teacher'].variables
  )


def test_the_student_before_the_method_is_kept_as_layers(
  after_each, assert_same
):
  kept = after_each[-1].carry['layers'].variables
  assert_same(kept, after_each[4].carry['student'].variables)


def test_the_student_starts_with_the_teachers_head(
  carry, after_each, recipe, assert_same, start, changed
):
  before, after = after_each[:2]
  assert changed(before, after) == {'head'}
  assert_same(*(after.carry[r].variables['params']['head'] for r in carry))
  method = masked_layer(recipe, copy_head=False)
  end = start(method, carry)
  assert_same(end['student'].variables, carry['student'].variables)


def test_a_head_with_other_stages_is_not_copied(
  carry, recipe, start, assert_same, model, tiny
):
  deeper = Network(
    (
      *tiny(2).stages[:-1],
      Stage('hidden', layers.Hidden(5)),
      tiny(2).stages[-1],
    )
  )
  other = {**carry, 'teacher': model(deeper, 1, recipe)}
  end = start(masked_layer(recipe), other)
  assert_same(end['student'].variables, carry['student'].variables)


def test_the_head_is_copied_if_the_teacher_has_more_stages_before_it(
  carry, recipe, start, assert_same, model, tiny
):
  cut = (('group1', 'group1'),)
  deeper = Network(
    (
      *tiny(2).stages[:-2],
      Stage('group2.conv2', layers.ConvUnit(4)),
      *tiny(2).stages[-2:],
    )
  )
  other = {**carry, 'teacher': model(deeper, 1, recipe)}
  end = start(masked_layer(recipe, cut=cut), other)
  old, new = (models['student'].variables['params'] for models in (carry, end))
  assert_same(new['head'], other['teacher'].variables['params']['head'])
  assert old.keys() == new.keys()
  assert_same(*({k: p[k] for k in old if k != 'head'} for p in (old, new)))


def test_distances_without_masks_skip_the_mask_phase(recipe, carry, start):
  for distance in ('l1', 'l2'):
    method = masked_layer(recipe, layers=Layers(distance=distance))
    phases = [make(start(method[:1], carry)).name for make in method]
    assert phases == [
      *('start', 'local', 'local_statistics', 'keep_layers', 'refinery'),
    ]


@pytest.mark.parametrize('index', [1, 3, 5], ids=['masks', 'statistics', 'kd'])
def test_a_resumed_phase_ends_with_the_same_bits(
  index, method, dataset, after_each, tmp_path, resumed, assert_same
):
  phase, before = method[index : index + 1], after_each[index].carry
  resumed_run = resumed(phase, before, dataset, 1, tmp_path)
  whole = after_each[index + 1]
  for role in ('student', 'masks'):
    assert_same(resumed_run.carry[role].variables, whole.carry[role].variables)
  assert resumed_run.reports == whole.reports


def test_a_resumed_run_uses_the_saved_masks(
  method, carry, dataset, tmp_path, resumed, assert_same
):
  """The masks take steps 1 to 4, and the groups steps 5 to 12."""
  resumed_run = resumed(method[:3], carry, dataset, 7, tmp_path)
  whole = loop.fit(method[:3], carry, dataset, options=SILENT)
  assert resumed_run.steps == whole.steps == 12
  for role in ('student', 'masks'):
    assert_same(resumed_run.carry[role].variables, whole.carry[role].variables)
  assert resumed_run.reports == whole.reports


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'label_epochs': -1}, 'label_epochs: expected a number of at least 0'),
    (
      {'end_to_end': False, 'label_epochs': 1.0},
      'end_to_end: expected True with the keys method and label_epochs',
    ),
    ({'breakpoints': 'all'}, "unknown breakpoints 'all'"),
    ({'cut': ()}, 'cut: expected at least one pair'),
    ({'cut': (('group1', 'group9'),)}, "unknown teacher feature 'group9'"),
    (
      {'cut': (('group1', 'group2'),)},
      "cut: expected equal shapes, got (8, 8, 3) for 'group1' of the student "
      "and (4, 4, 4) for 'group2' of the teacher",
    ),
    ({'cut': SHARED[::-1]}, "'group1' is not computed after 'group2'"),
    ({'cut': (('group1.pre', 'group1.pre'),)}, "stage or group 'group1.pre'"),
    ({'cut': (('head', 'head'),)}, "got 'head', the end of the student"),
  ],
)
def test_invalid_arguments_are_refused(arguments, words, recipe, carry):
  with pytest.raises(UsageError) as caught:
    masked_layer(recipe, **arguments)[0](carry)
  assert words in str(caught.value)


@pytest.mark.parametrize(
  ('section', 'arguments', 'words'),
  [
    (Masks, {'alpha': -1e-3}, 'masks.alpha: expected a number in [0, 1e+09]'),
    (Masks, {'alpha': float('nan')}, '[0, 1e+09], got nan'),
    (Masks, {'alpha': 'best'}, "unknown masks.alpha 'best' (valid: auto)"),
    (Masks, {'max_drop': 101}, 'masks.max_drop: expected a number in [0, 100]'),
    (
      Masks,
      {'value': 1.5},
      'masks.value: expected a number in [0, 1], got 1.5',
    ),
    (Masks, {'epochs': -1}, 'masks.epochs: expected a number of at least 0'),
    (Masks, {'noise': 'clear'}, "'clear'; did you mean 'clean'?"),
    (
      Layers,
      {'statistics_steps': -1},
      'layers.statistics_steps: expected a whole number of at least 0, got -1',
    ),
    (Layers, {'statistics_steps': 2.5}, 'of at least 0, got 2.5'),
    (Layers, {'epochs': -1}, 'layers.epochs: expected a number of at least 0'),
    (Layers, {'distance': 'l3'}, "unknown layers.distance 'l3'"),
    (Layers, {'inputs': 'both'}, "unknown layers.inputs 'both'"),
  ],
)
def test_invalid_values_of_a_section_are_refused(section, arguments, words):
  with pytest.raises(UsageError) as caught:
    section(**arguments)
  assert words in str(caught.value)


def test_a_teacher_of_other_widths_or_groups_is_refused(
  recipe, carry, model, tiny
):
  wide = {**carry, 'teacher': model(tiny(2, last=5), 1, recipe)}
  with pytest.raises(
    UsageError, match=r"got \(4, 4, 4\) for 'group2' of the .* \(4, 4, 5"
  ):
    masked_layer(recipe)[0](wide)
  more = NETWORKS['resnet8'](num_classes=3, widths=(3, 4, 4), stem_width=3)
  other = {**carry, 'teacher': model(more, 1, recipe)}
  with pytest.raises(UsageError, match='the teacher stem, group1, group2, gr'):
    masked_layer(recipe)[0](other)
