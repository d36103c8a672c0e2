"""Methods of several phases: what trains in each, and who teaches whom."""

import inspect

import jax
import numpy as np
import pytest

from jaxdistill import optimizers, recipes, tables, terms
from jaxdistill.data import arrays
from jaxdistill.methods import chains, joint, mutual, two_stage
from jaxdistill.networks import layers, resnet, staged, vgg
from jaxdistill.pruning import weights
from jaxdistill.tasks import classification
from jaxdistill.terms import pairs
from jaxdistill.training import log, loop
from jaxdistill.types import Model, Network, Stage, UsageError

SILENT = loop.Options(log=log.Log(show=False))


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
    classification.classification(),
    epochs=2,
    batch_size=8,
    optimizer=optimizers.sgd(optimizers.constant(rate=0.1)),
  )


@pytest.fixture(scope='module')
def carry(recipe):
  image = {'image': recipe.example['image']}
  networks = {'student': tiny(2, 2, 4), 'teacher': tiny(2, 2, 4)}
  return {
    role: Model(network, staged.init(network, jax.random.key(i), image))
    for i, (role, network) in enumerate(networks.items())
  }


def _moved(before: Model, after: Model) -> set[str]:
  """Stages of which any variable differs."""
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
    (two_stage.activation_boundaries, {'stem', 'group1.conv1', 'group2.conv1'}),
    (two_stage.flow_of_solution, {'stem', 'group1.conv1', 'group2.conv1'}),
  ],
)
def test_a_first_stage_trains_the_trunk_alone(
  method, trained, recipe, carry, dataset
):
  """Not the head, whose weights would decay, nor its statistics."""
  first = method(recipe, first=0.5)[:1]
  after = loop.fit(first, carry, dataset, options=SILENT).carry
  assert _moved(carry['student'], after['student']) == trained


def test_a_first_stage_spares_the_norm_behind_a_wide_resnet(recipe):
  """FSP compares raw sums; AB what the norm in front of the pooling gives."""
  network = resnet.wide_resnet(10, 1, num_classes=3, base_width=2)
  pair = terms.pair_of(network, network, recipe)
  assert (
    pairs.stages_up_to(pair.student, pair.student_shapes, 'group3')[-1]
    == 'group3.block1'
  )
  assert (
    pairs.stages_up_to(pair.student, pair.student_shapes, 'group3.pre')[-1]
    == 'pool'
  )


def test_a_hint_in_the_middle_leaves_what_lies_behind(recipe, carry, dataset):
  first = two_stage.fitnets(recipe, first=0.5, cut=(('group1', 'group1'),))[:1]
  after = loop.fit(first, carry, dataset, options=SILENT).carry
  assert _moved(carry['student'], after['student']) == {'stem', 'group1.conv1'}


def test_both_stages_share_the_recipes_epochs(recipe, carry):
  method = two_stage.fitnets(recipe._replace(epochs=18), first=1 / 9)
  assert [make(carry).num_steps for make in method] == [2, 16]


def test_the_paraphraser_stays_once_the_student_learns(recipe, carry, dataset):
  method = two_stage.factor_transfer(recipe, first=0.5)
  prepared = loop.fit(method[:2], carry, dataset, options=SILENT).carry
  assert _moved(carry['student'], prepared['student']) == set()
  after = loop.fit(method[2:], prepared, dataset, options=SILENT).carry
  assert _moved(prepared['paraphraser'], after['paraphraser']) == set()
  assert 'head' in _moved(carry['student'], after['student'])


def test_each_generation_is_taught_by_the_one_before(recipe, carry, dataset):
  method = chains.born_again(recipe._replace(epochs=1), generations=2)
  student = {'student': carry['student']}
  until = [
    loop.fit(method[:n], student, dataset, options=SILENT).carry
    for n in range(1, 6)
  ]
  # Phases: supervised, renew, learn, renew, learn.
  assert _moved(until[0]['student'], until[1]['parent']) == set()
  assert 'stem' in _moved(until[0]['student'], until[1]['student'])
  assert _moved(until[2]['student'], until[3]['parent']) == set()
  assert _moved(until[3]['parent'], until[4]['parent']) == set()
  assert 'head' in _moved(until[3]['student'], until[4]['student'])


def test_a_chain_of_assistants_hands_knowledge_down(recipe, carry):
  method = chains.assistants(
    recipe, assistants={'large': tiny(3, 3, 3), 'small': tiny(2, 2, 2)}
  )
  made = method[0](carry)
  state, frozen = made.init(jax.random.key(0), carry)
  carry = made.finish(state, frozen, carry)
  phases = [make(carry) for make in method[1:]]
  assert [list(p.views) for p in phases] == [['large'], ['small'], ['student']]
  teachers = [list(p.init(jax.random.key(0), carry)[1]) for p in phases]
  assert teachers == [['teacher'], ['large'], ['small']]


def test_peers_begin_differently_and_both_learn(recipe, carry, dataset):
  method = mutual.mutual(recipe)
  student = {'student': carry['student']}
  begun = loop.fit(method[:1], student, dataset, options=SILENT).carry
  assert 'stem' in _moved(begun['student'], begun['peer'])
  after = loop.fit(method[1:], begun, dataset, options=SILENT).carry
  for role in ('student', 'peer'):
    assert {'stem', 'head'} <= _moved(begun[role], after[role])


def test_a_method_of_one_term_has_the_terms_arguments():
  parameters = inspect.signature(joint.kd).parameters
  assert set(parameters) == {
    *('recipe', 'label_weight', 'student', 'teacher'),
    *('weight', 'temperature'),
  }
  assert parameters['label_weight'].default == 0.1
  assert parameters['temperature'].default == 4.0


def test_a_missing_teacher_is_named(recipe, carry):
  with pytest.raises(UsageError, match="a model in the role 'teacher'"):
    joint.kd(recipe)[0]({'student': carry['student']})


def test_every_method_builds_its_first_phase(recipe, carry):
  half = weights.magnitude(keep=0.5)
  # Some train on a part of the examples alone.
  stream = recipe.stream._replace(batch_size=2)
  recipe = recipe._replace(stream=stream, validation_steps=1)
  labels = joint.supervised(recipe)
  alike = {**carry, 'student': carry['teacher']}
  for name, method in tables.METHODS.items():
    arguments = {
      'takd': {'assistants': {'middle': tiny(2, 2, 2)}},
      'joint': {'terms': {'kd': terms.soft_target()}},
      'sskd': {'num_stages': 2},
      'multi_loss': {'num_stages': 2},
      'fixed_backbone': {'method': labels},
      'from_teacher': {'method': labels},
      'snapshots': {'method': labels, 'at': (1.0,)},
      'pruned': {'pruning': half, 'fine_tune': joint.supervised},
      'pruning_protocol': {'prunings': {'half': half}},
      'distpro_retrain': {'use': 'equal'},
      'student_search': {'sparsities': (0.5,)},
    }.get(name, {})
    if 'recipe' in inspect.signature(method).parameters:
      arguments = {'recipe': recipe, **arguments}
    pieces = name in ('neighbourhood', 'student_search')
    phase = method(**arguments)[0](alike if pieces else carry)
    assert phase.num_steps >= 0 and phase.name
