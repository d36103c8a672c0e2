"""Methods of several phases: what each phase trains, and who teaches whom."""

import inspect

import jax
import numpy as np
import pytest

from jaxdistill import objectives, optimizers, pruning
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.data.sources import arrays
from jaxdistill.data.transforms import augment
from jaxdistill.methods import chains, mutual, two_stage
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import resnet, vgg
from jaxdistill.objectives import pairs
from jaxdistill.phases import joint, recipes
from jaxdistill.study import registry
from jaxdistill.tasks import classification
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
# These need maps or vectors; see objectives/test_dense_terms.py, for example.
NEED_OTHER_TASKS = (
  *('cwd', 'depth_kd', 'fgd', 'ifv', 'pixel_kd', 'supervised_vectors'),
)


def tiny(*widths):
  units = [
    Stage('stem', vgg.VGGUnit(widths[0])),
    Stage('group1.conv1', vgg.VGGUnit(widths[1])),
    Stage('group2.conv1', vgg.VGGUnit(widths[2], pool=True)),
    Stage('pool', layers.Pool()),
    Stage('head', layers.Classifier(3)),
  ]
  return Network(tuple(units))


@pytest.fixture(scope='module')
def dataset():
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (8, 8, 8, 1), np.uint8)
  label = np.arange(8) % 3
  return arrays.from_arrays(image, label, image, label, validation=0)


@pytest.fixture(scope='module')
def recipe(dataset):
  return recipes.recipe(
    dataset,
    classification(),
    epochs=2,
    batch_size=8,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1)),
  )


@pytest.fixture(scope='module')
def carry(recipe):
  image = {'image': recipe.example['image']}
  networks = {'student': tiny(2, 2, 4), 'teacher': tiny(2, 2, 4)}
  return {
    role: Model(network, graph.init(network, jax.random.key(i), image))
    for i, (role, network) in enumerate(networks.items())
  }


def _changed(before: Model, after: Model) -> set[str]:
  """Returns the stages in which any variable differs."""
  return {
    name
    for collection, tree in before.variables.items()
    for name in tree
    if any(
      (np.asarray(a) != np.asarray(b)).any()
      for a, b in zip(
        jax.tree.leaves(tree[name]),
        jax.tree.leaves(after.variables[collection][name]),
      )
    )
  }


@pytest.mark.parametrize(
  ('method', 'trained'),
  [
    (two_stage.fitnets, {'stem', 'group1.conv1', 'group2.conv1'}),
    (two_stage.ab, {'stem', 'group1.conv1', 'group2.conv1'}),
    (two_stage.fsp, {'stem', 'group1.conv1', 'group2.conv1'}),
  ],
)
def test_the_first_phase_trains_only_the_backbone(
  method, trained, recipe, carry, dataset
):
  """It changes neither the head, whose weights would decay, nor statistics."""
  first = method(recipe, first=0.5)[:1]
  after = loop.fit(first, carry, dataset, options=SILENT).carry
  assert _changed(carry['student'], after['student']) == trained


def test_the_last_norm_of_a_wide_resnet_trains_only_if_a_feature_needs_it(
  recipe,
):
  """FSP compares features before that norm, AB features after it."""
  network = resnet.wide_resnet(10, 1, num_classes=3, base_width=2)
  pair = objectives.pair_of(network, network, recipe)
  assert (
    pairs.stages_up_to(pair.student, pair.student_shapes, 'group3')[-1]
    == 'group3.block1'
  )
  assert (
    pairs.stages_up_to(pair.student, pair.student_shapes, 'group3.pre')[-1]
    == 'pool'
  )


def test_a_hint_in_the_middle_does_not_train_later_stages(
  recipe, carry, dataset
):
  first = two_stage.fitnets(
    recipe, first=0.5, feature_pairs=(('group1', 'group1'),)
  )[:1]
  after = loop.fit(first, carry, dataset, options=SILENT).carry
  assert _changed(carry['student'], after['student']) == {
    'stem',
    'group1.conv1',
  }


def test_both_phases_share_the_recipes_epochs(recipe, carry):
  method = two_stage.fitnets(recipe._replace(epochs=18), first=1 / 9)
  assert [make(carry).num_steps for make in method] == [2, 16]


def test_the_paraphraser_is_constant_while_the_student_learns(
  recipe, carry, dataset
):
  method = two_stage.ft(recipe, first=0.5)
  prepared = loop.fit(method[:2], carry, dataset, options=SILENT).carry
  assert _changed(carry['student'], prepared['student']) == set()
  after = loop.fit(method[2:], prepared, dataset, options=SILENT).carry
  assert _changed(prepared['paraphraser'], after['paraphraser']) == set()
  assert 'head' in _changed(carry['student'], after['student'])


def test_each_generation_is_taught_by_the_previous_one(recipe, carry, dataset):
  method = chains.ban(recipe._replace(epochs=1), generations=2)
  student = {'student': carry['student']}
  carry_after = [
    loop.fit(method[:n], student, dataset, options=SILENT).carry
    for n in range(1, 6)
  ]
  # The phases are: supervised, new network, distillation, and these two again.
  assert _changed(carry_after[0]['student'], carry_after[1]['parent']) == set()
  assert 'stem' in _changed(
    carry_after[0]['student'], carry_after[1]['student']
  )
  assert _changed(carry_after[2]['student'], carry_after[3]['parent']) == set()
  assert _changed(carry_after[3]['parent'], carry_after[4]['parent']) == set()
  assert 'head' in _changed(
    carry_after[3]['student'], carry_after[4]['student']
  )


def test_each_assistant_teaches_the_next_one(recipe, carry):
  method = chains.takd(
    recipe, assistants={'large': tiny(3, 3, 3), 'small': tiny(2, 2, 2)}
  )
  setup = method[0](carry)
  state, frozen = setup.init(jax.random.key(0), carry)
  carry = setup.finish(state, frozen, carry)
  phases = [make(carry) for make in method[1:]]
  assert [list(p.eval_models) for p in phases] == [
    ['large'],
    ['small'],
    ['student'],
  ]
  teachers = [list(p.init(jax.random.key(0), carry)[1]) for p in phases]
  assert teachers == [['teacher'], ['large'], ['small']]


def test_peers_start_with_different_weights_and_both_learn(
  recipe, carry, dataset
):
  method = mutual.dml(recipe)
  student = {'student': carry['student']}
  start = loop.fit(method[:1], student, dataset, options=SILENT).carry
  assert 'stem' in _changed(start['student'], start['peer'])
  after = loop.fit(method[1:], start, dataset, options=SILENT).carry
  for role in ('student', 'peer'):
    assert {'stem', 'head'} <= _changed(start[role], after[role])


def test_a_method_of_one_objective_has_its_arguments():
  parameters = inspect.signature(joint.kd).parameters
  assert set(parameters) == {
    *('recipe', 'label_weight', 'student', 'teacher'),
    *('weight', 'temperature'),
  }
  assert parameters['label_weight'].default == 0.1
  assert parameters['temperature'].default == 4.0


def test_a_missing_teacher_is_reported(recipe, carry):
  with pytest.raises(UsageError, match="a model in the role 'teacher'"):
    joint.kd(recipe)[0]({'student': carry['student']})


def test_every_method_builds_its_first_phase(recipe, carry):
  half = pruning.magnitude(keep=0.5)
  # Some methods train on only a part of the examples.
  stream = recipe.stream._replace(batch_size=2)
  recipe = recipe._replace(stream=stream, validation_steps=1)
  labels = joint.supervised(recipe)
  same_networks = {**carry, 'student': carry['teacher']}
  for name, method in registry.METHODS.items():
    if name in NEED_OTHER_TASKS:
      continue
    arguments = {
      'takd': {'assistants': {'middle': tiny(2, 2, 2)}},
      'joint': {'terms': {'kd': objectives.kd()}},
      'sskd': {'num_stages': 2},
      'multi_loss': {'num_stages': 2},
      'fixed_backbone': {'method': labels},
      'from_teacher': {'method': labels},
      'snapshots': {'method': labels, 'at': (1.0,)},
      'pruned': {'pruning': half, 'fine_tune': joint.supervised},
      'pruning_protocol': {'prunings': {'half': half}},
      'regularization_protocol': {'regularized': augment.none()},
      'distpro_retrain': {'use': 'equal'},
      'student_search': {'sparsities': (0.5,)},
    }.get(name, {})
    if 'recipe' in inspect.signature(method).parameters:
      arguments = {'recipe': recipe, **arguments}
    needs_same_networks = name in ('neighbourhood', 'student_search')
    phase = method(**arguments)[0](
      same_networks if needs_same_networks else carry
    )
    assert phase.num_steps >= 0 and phase.name
