"""How a student and its teacher are divided into neighbourhoods."""

import jax
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.methods.neighbourhood import layouts
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import layerwise, narrowing

EXAMPLE = {'image': jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)}
BOTTLENECKS = networks.NETWORKS['cifar_resnet50'](
  num_classes=3, stem_width=2, widths=(4, 4, 4, 4)
)


def _resnet(**arguments):
  arguments = {'stem_width': 4, 'widths': (4, 4, 4), **arguments}
  return networks.NETWORKS['resnet8'](num_classes=3, **arguments)


def _model(network, seed):
  return Model(network, graph.init(network, jax.random.key(seed), EXAMPLE))


@pytest.fixture(scope='module')
def teacher():
  return _model(_resnet(), 0)


def test_narrowed_blocks_are_neighbourhoods_and_other_stages_are_outside(
  teacher,
):
  student = narrowing.narrowed(teacher.network, multiplier=0.5)
  layout = layouts.layout(student, teacher.network, EXAMPLE)
  assert layout.inputs == ('stem', 'stem')
  names = ('group1.block1', 'group2.block1', 'group3.block1')
  assert layout.stages == names
  assert [n.teacher for n in layout.neighbourhoods] == [(n,) for n in names]
  assert layout.outside == (
    ('stem', 'stem'),
    ('pool', 'pool'),
    ('head', 'head'),
  )


def test_a_narrower_layer_and_the_next_one_form_a_neighbourhood():
  """Two layers of each bottleneck form one, as '-2' in Table 2 of the paper."""

  def layers(network):
    shapes = graph.variable_shapes(network, EXAMPLE)
    return layerwise.by_layers(Model(network, shapes)).network

  teacher = layers(BOTTLENECKS)
  narrow = narrowing.narrowed(BOTTLENECKS, multiplier=0.5, inner_after=False)
  student = layers(narrow)
  layout = layouts.layout(student, teacher, EXAMPLE, copy_same=True)
  block = 'group1.block2'
  pieces = [n for n in layout.neighbourhoods if n.student[0].startswith(block)]
  assert [(n.student, n.copied) for n in pieces] == [
    ((f'{block}.conv1', f'{block}.conv2'), False),
    ((f'{block}.conv3',), True),
  ]
  assert len(layout.trained) == 16


def test_any_boundaries_can_be_chosen(teacher):
  student = _resnet(inner_widths=(1, 1, 1))
  layout = layouts.layout(
    student,
    teacher.network,
    EXAMPLE,
    cut=(('image', 'image'), ('group1', 'group1'), ('head', 'head')),
  )
  assert [n.student for n in layout.neighbourhoods] == [
    ('stem', 'group1.block1'),
    ('group2.block1', 'group3.block1', 'pool', 'head'),
  ]
  assert layout.outside == ()


@pytest.mark.parametrize('index', [0, 2])
def test_a_partial_model_with_the_teachers_own_part_is_the_teacher(
  teacher, index
):
  layout = layouts.layout(teacher.network, teacher.network, EXAMPLE)
  image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
  logits = graph.apply(*teacher, image)
  same = layouts.partial(layout, index, teacher, teacher)
  np.testing.assert_array_equal(graph.apply(*same, image), logits)
  other = _model(_resnet(inner_widths=(1, 2, 3)), 1)
  layout = layouts.layout(other.network, teacher.network, EXAMPLE)
  changed = layouts.partial(layout, index, other, teacher)
  assert np.abs(graph.apply(*changed, image) - logits).max() > 1e-4
  widths = [s.module.inner for s in changed.network.stages[1:4]]
  assert [bool(w) for w in widths] == [i == index for i in range(3)]


def test_a_composed_student_is_the_teacher_outside_and_itself_inside(teacher):
  student = _model(_resnet(inner_widths=(1, 2, 3)), 1)
  layout = layouts.layout(student.network, teacher.network, EXAMPLE)
  composed = layouts.compose(layout, student, teacher)
  for name, params in composed.variables['params'].items():
    source = student if name in layout.stages else teacher
    jax.tree.map(
      np.testing.assert_array_equal, params, source.variables['params'][name]
    )


@pytest.mark.parametrize(
  ('arguments', 'cut', 'message'),
  [
    (
      {'widths': (4, 4, 2)},
      (('stem', 'stem'), ('group3', 'group3')),
      r"of equal shapes, got \(2, 2, 2\) at 'group3' and the teacher's",
    ),
    (
      {'widths': (4, 4, 2)},
      None,
      'outside the neighbourhoods the student must equal',
    ),
    (
      {'stem_width': 2, 'widths': (2, 2, 2)},
      None,
      'at least two stages of the same name and shape',
    ),
    ({}, (('stem', 'stem'),), 'at least two boundaries, got 1'),
    ({}, (('stem',), ('group1',)), "expected pairs .* got .'stem',"),
    ({}, (('stem', 'nose'), ('group1', 'group1')), "teacher feature 'nose'"),
    (
      {},
      (('group2', 'group2'), ('group1', 'group1')),
      'cut: .*(is not computed after|of equal shapes)',
    ),
    (
      {},
      (('group1', 'group1'), ('group1.block1.pre', 'group1.block1.pre')),
      'in the student, unknown output of a stage or group',
    ),
  ],
)
def test_networks_that_cannot_be_divided_are_refused(
  teacher, arguments, cut, message
):
  with pytest.raises(UsageError, match=message):
    layouts.layout(_resnet(**arguments), teacher.network, EXAMPLE, cut=cut)
