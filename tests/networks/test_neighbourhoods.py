"""How a student and its teacher are cut into neighbourhoods."""

import jax
import numpy as np
import pytest

from jaxdistill import networks
from jaxdistill.networks import layerwise, neighbourhoods, staged
from jaxdistill.types import Model, UsageError

EXAMPLE = {'image': jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)}
BOTTLENECKS = networks.NETWORKS['cifar_resnet50'](
  num_classes=3, stem_width=2, widths=(4, 4, 4, 4)
)


def _resnet(**arguments):
  arguments = {'stem_width': 4, 'widths': (4, 4, 4), **arguments}
  return networks.NETWORKS['resnet8'](num_classes=3, **arguments)


def _model(network, seed):
  return Model(network, staged.init(network, jax.random.key(seed), EXAMPLE))


@pytest.fixture(scope='module')
def teacher():
  return _model(_resnet(), 0)


def test_blocks_are_the_neighbourhoods_and_the_rest_is_outside(teacher):
  student = layerwise.narrowed(teacher.network, multiplier=0.5)
  made = neighbourhoods.layout(student, teacher.network, EXAMPLE)
  assert made.inputs == ('stem', 'stem')
  names = ('group1.block1', 'group2.block1', 'group3.block1')
  assert made.stages == names
  assert [n.teacher for n in made.neighbourhoods] == [(n,) for n in names]
  assert made.outside == (('stem', 'stem'), ('pool', 'pool'), ('head', 'head'))


def test_layers_of_other_widths_are_in_one_neighbourhood_with_the_next():
  """Two layers of each bottleneck, and copies of the third: Table 2's '-2'."""

  def layers(network):  # their names depend on no value
    shapes = staged.variable_shapes(network, EXAMPLE)
    return layerwise.by_layers(Model(network, shapes)).network

  teacher = layers(BOTTLENECKS)
  narrow = layerwise.narrowed(BOTTLENECKS, multiplier=0.5, inner_after=False)
  student = layers(narrow)
  made = neighbourhoods.layout(student, teacher, EXAMPLE, copy_same=True)
  block = 'group1.block2'
  own = [n for n in made.neighbourhoods if n.student[0].startswith(block)]
  assert [(n.student, n.copied) for n in own] == [
    ((f'{block}.conv1', f'{block}.conv2'), False),
    ((f'{block}.conv3',), True),
  ]
  assert len(made.trained) == 16


def test_any_boundaries_can_be_given(teacher):
  student = _resnet(inner_widths=(1, 1, 1))
  made = neighbourhoods.layout(
    student,
    teacher.network,
    EXAMPLE,
    cut=(('image', 'image'), ('group1', 'group1'), ('head', 'head')),
  )
  assert [n.student for n in made.neighbourhoods] == [
    ('stem', 'group1.block1'),
    ('group2.block1', 'group3.block1', 'pool', 'head'),
  ]
  assert made.outside == ()


@pytest.mark.parametrize('index', [0, 2])
def test_a_partial_model_with_the_teachers_own_piece_is_the_teacher(
  teacher, index
):
  made = neighbourhoods.layout(teacher.network, teacher.network, EXAMPLE)
  image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
  answer = staged.apply(*teacher, image)
  same = neighbourhoods.partial(made, index, teacher, teacher)
  np.testing.assert_array_equal(staged.apply(*same, image), answer)
  other = _model(_resnet(inner_widths=(1, 2, 3)), 1)
  made = neighbourhoods.layout(other.network, teacher.network, EXAMPLE)
  changed = neighbourhoods.partial(made, index, other, teacher)
  assert np.abs(staged.apply(*changed, image) - answer).max() > 1e-4
  widths = [s.module.inner for s in changed.network.stages[1:4]]
  assert [bool(w) for w in widths] == [i == index for i in range(3)]


def test_a_composed_student_is_the_teacher_outside_and_itself_inside(teacher):
  student = _model(_resnet(inner_widths=(1, 2, 3)), 1)
  made = neighbourhoods.layout(student.network, teacher.network, EXAMPLE)
  found = neighbourhoods.compose(made, student, teacher)
  for name, own in found.variables['params'].items():
    source = student if name in made.stages else teacher
    jax.tree.map(
      np.testing.assert_array_equal, own, source.variables['params'][name]
    )


@pytest.mark.parametrize(
  ('arguments', 'cut', 'message'),
  [
    (
      {'widths': (4, 4, 2)},
      (('stem', 'stem'), ('group3', 'group3')),
      r"the neighbourhood up to 'group3' puts out \(2, 2, 2\), and the",
    ),
    ({'widths': (4, 4, 2)}, None, 'outside the neighbourhoods the student'),
    (
      {'stem_width': 2, 'widths': (2, 2, 2)},
      None,
      'no two stages of the same name whose',
    ),
    ({}, (('stem', 'stem'),), 'has fewer than two boundaries'),
    ({}, (('stem',), ('group1',)), "'stem',.* is no pair of features"),
    ({}, (('stem', 'nose'), ('group1', 'group1')), "teacher feature 'nose'"),
    (
      {},
      (('group2', 'group2'), ('group1', 'group1')),
      'cut: .*(is not computed after|must agree)',
    ),
    (
      {},
      (('group1', 'group1'), ('group1.block1.pre', 'group1.block1.pre')),
      'of the student, unknown boundary between stages',
    ),
  ],
)
def test_neighbourhoods_that_do_not_fit_are_refused(
  teacher, arguments, cut, message
):
  with pytest.raises(UsageError, match=message):
    neighbourhoods.layout(
      _resnet(**arguments), teacher.network, EXAMPLE, cut=cut
    )
