"""Students made from their teacher by edits: what is copied, what trains."""

import jax
import numpy as np
import pytest

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network, Stage
from jaxdistill.methods.masked_layer.layer_phases import Layers
from jaxdistill.methods.masked_layer.mask_phases import Masks
from jaxdistill.methods.masked_layer.method import masked_layer
from jaxdistill.networks import graph, layers
from jaxdistill.networks.models import vgg
from jaxdistill.networks.surgery import edits
from jaxdistill.study import parse, registry
from jaxdistill.training import log, loop

SILENT = loop.FitOptions(log=log.Log(show=False))
NO_MASKS = Masks(epochs=0.0)
SMALL_VGG = {'name': 'vgg8', 'width': 0.0625}


def relative_l1(models, batch, feature):
  """The distance of student and teacher, both in inference mode."""
  student, teacher = (
    graph.run(*models[role], {'image': batch['image']})[0][feature]
    for role in ('student', 'teacher')
  )
  return float(abs(student - teacher).mean() / abs(teacher).mean())


def different(student, teacher):
  """The stages in which any variable of the student is not the teacher's."""
  return {
    name
    for collection, tree in student.variables.items()
    for name, variables in tree.items()
    if name not in teacher.variables[collection]
    or any(
      (np.asarray(a) != np.asarray(b)).any()
      for a, b in zip(
        jax.tree.leaves(variables),
        jax.tree.leaves(teacher.variables[collection][name]),
      )
    )
  }


def test_remaining_stages_are_inherited_after_the_masks(
  carry, recipe, assert_same
):
  """The noise is that of the untrained student."""
  method = masked_layer(recipe, inherit=True, copy_head=False)
  names = []
  for make in method[:3]:
    phase = make(carry)
    names.append(phase.name)
    state, frozen = phase.init(jax.random.key(0), carry)
    end = phase.finish(state, frozen, carry)
    if names[-1] != 'inherit':
      assert_same(end['student'].variables, carry['student'].variables)
    carry = end
  assert names == ['start', 'masks', 'inherit']
  for collection, tree in end['student'].variables.items():
    for stage, variables in tree.items():
      assert_same(variables, carry['teacher'].variables[collection][stage])


@pytest.mark.parametrize('inputs', ['teacher', 'student', 'chain'])
def test_a_student_equal_to_its_teacher_stays_equal_if_it_inherits(
  inputs, tiny, model, recipe, dataset, batch
):
  models = {
    'student': model(tiny(2), 0, recipe),
    'teacher': model(tiny(2), 1, recipe),
  }
  assert relative_l1(models, batch, 'group2') > 0.1
  method = masked_layer(
    recipe,
    masks=NO_MASKS,
    layers=Layers(epochs=5, statistics_steps=2, inputs=inputs),
    inherit=True,
    end_to_end=False,
  )
  end = loop.fit(method, models, dataset, options=SILENT).carry
  assert relative_l1(end, batch, 'group2') == 0.0
  assert not different(end['student'], end['teacher'])


@pytest.mark.parametrize('inputs', ['teacher', 'student'])
@pytest.mark.parametrize('name', ['group1.conv2', 'group1.new'])
def test_only_the_replaced_block_trains(
  name, inputs, tiny, model, recipe, dataset
):
  """A new block of the same kind needs a new name: others are inherited."""
  same_kind = name == 'group1.new'
  unit = vgg.VGGUnit(3) if same_kind else layers.ConvUnit(3)
  part = Network((Stage(name, unit),))
  teacher = model(tiny(3), 1, recipe)
  network = edits.replace(
    teacher.network, *('group1.conv2',) * 2, part, image_shape=(8, 8, 1)
  )
  student = model(network, 0, recipe)
  method = masked_layer(
    recipe,
    breakpoints='blocks',
    masks=NO_MASKS,
    layers=Layers(epochs=5, statistics_steps=2, inputs=inputs),
    inherit=True,
    end_to_end=False,
  )
  models = {'student': student, 'teacher': teacher}
  end = loop.fit(method, models, dataset, options=SILENT).carry
  assert different(end['student'], teacher) == {name}
  old, new = (m.variables['params'][name] for m in (student, end['student']))
  assert (old['conv']['kernel'] != new['conv']['kernel']).any()


def test_an_inserted_layer_learns_the_identity(
  tiny, model, recipe, dataset, batch
):
  teacher = model(tiny(2), 1, recipe)
  part = edits.stages(teacher.network, 'group1.conv2', names=('group1.extra',))
  network = edits.insert(
    teacher.network, 'group1.conv2', part, image_shape=(8, 8, 1)
  )
  models = {'student': model(network, 0, recipe), 'teacher': teacher}
  method = masked_layer(
    recipe,
    breakpoints='blocks',
    repeat_teacher=True,
    masks=NO_MASKS,
    layers=Layers(epochs=50, statistics_steps=4),
    inherit=True,
    end_to_end=False,
  )
  # The copy of the teacher with a new layer in it, before anything is learned.
  variables = edits.inherit(network, models['student'].variables, teacher)
  before = {**models, 'student': Model(network, variables)}
  end = loop.fit(method, models, dataset, options=SILENT).carry
  assert different(end['student'], teacher) == {'group1.extra'}
  first, last = (relative_l1(m, batch, 'group1') for m in (before, end))
  assert last < 0.3 * first


@pytest.mark.parametrize(
  ('section', 'expected'),
  [
    (
      {
        'name': 'inserted',
        'network': SMALL_VGG,
        'after': 'group3.conv1',
        'part': {
          'name': 'stages',
          'network': {'name': 'vgg13', 'width': 0.0625},
          'start': 'group3.conv2',
        },
      },
      ('group2.conv1', 'group3.conv1', 'group3.conv2', 'group4.conv1'),
    ),
    (
      {
        'name': 'replaced',
        'network': SMALL_VGG,
        'start': 'group3.conv1',
        'stop': 'group3.conv1',
        'part': {
          'name': 'stages',
          'network': {'name': 'vgg13', 'width': 0.0625},
          'start': 'group3.conv1',
          'stop': 'group3.conv2',
          'names': ('group3.first', 'group3.second'),
        },
      },
      ('group2.conv1', 'group3.first', 'group3.second', 'group4.conv1'),
    ),
    (
      {
        'name': 'inserted',
        'network': {
          'name': 'without',
          'network': {'name': 'resnet14'},
          'names': ('group2.block2',),
        },
        'after': 'group2.block1',
        'part': {
          'name': 'stages',
          'network': {
            'name': 'narrowed',
            'network': {'name': 'resnet14'},
            'multiplier': 0.5,
          },
          'start': 'group2.block2',
        },
      },
      ('group1.block2', 'group2.block1', 'group2.block2', 'group3.block1'),
    ),
  ],
)
def test_a_config_inserts_and_replaces_stages(section, expected):
  parsed = parse.parse(
    section,
    registry.NETWORKS,
    'student',
    registry.TABLES,
    context=('num_classes',),
  )
  names = graph.stage_names(parsed.build({'num_classes': 3}))
  first = names.index(expected[0])
  assert names[first : first + len(expected)] == expected


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'start': 'group9.conv1'}, "unknown stage 'group9.conv1'"),
    (
      {'start': 'group2.conv1', 'stop': 'group1.conv1'},
      "stop: expected 'group2.conv1' or a stage after it, got 'group1.conv1'",
    ),
    (
      {'start': 'group1.conv1', 'names': ('a', 'b')},
      'names: expected 1 entries, one for each of the stages, got 2',
    ),
  ],
)
def test_stages_that_do_not_exist_are_refused(arguments, message, tiny):
  with pytest.raises(UsageError) as caught:
    edits.stages(tiny(1), **arguments)
  assert message in str(caught.value)
