"""Schemes of initial weights draw kernels and change nothing else."""

import jax
import numpy as np
import pytest

from jaxdistill import networks, study
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import initial, layers
from jaxdistill.networks.models import mobilenet


@pytest.fixture(scope='module')
def variables():
  block = mobilenet.SeparableBlock(128)
  network = Network(
    (
      Stage('block1', block),
      Stage('block2', block),
      Stage('pool', layers.Pool()),
      Stage('head', layers.Classifier(3)),
    )
  )
  image = {'image': jax.ShapeDtypeStruct((1, 4, 4, 128), np.float32)}
  return networks.init(network, jax.random.key(0), image)


def kernel(variables, layer, stage='block1'):
  return np.asarray(variables['params'][stage][layer]['kernel'])


@pytest.mark.parametrize(
  ('mean', 'std'), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (1.0, 10.0)]
)
def test_a_normal_scheme_has_its_mean_and_deviation(mean, std, variables):
  drawn = initial.normal(mean=mean, std=std)(jax.random.key(1), variables)
  values = kernel(drawn, 'pointwise_conv')
  error = std / values.size**0.5
  assert abs(values.mean() - mean) <= 5 * error
  assert values.std() == pytest.approx(std, rel=5 / (2 * values.size) ** 0.5)


def test_xavier_has_the_bound_of_the_fans(variables):
  drawn = initial.xavier_uniform()(jax.random.key(1), variables)
  for layer, fans in (
    ('pointwise_conv', 128 + 128),
    # PyTorch's fans of a weight [128, 1, 3, 3].
    ('depthwise_conv', 9 + 9 * 128),
  ):
    values, bound = kernel(drawn, layer), (6 / fans) ** 0.5
    assert 0.98 * bound < np.abs(values).max() <= bound
    assert values.std() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize('linear', [False, True])
def test_only_kernels_are_drawn(linear, variables):
  drawn = initial.normal(linear=linear)(jax.random.key(1), variables)
  assert drawn['batch_stats'] is variables['batch_stats']
  for (path, old), new in zip(
    jax.tree_util.tree_leaves_with_path(variables['params']),
    jax.tree.leaves(drawn['params']),
    strict=True,
  ):
    expected = path[-1].key == 'kernel' and (linear or path[0].key != 'head')
    assert (old != new).any() == expected, path


def test_kernels_of_equal_shape_are_drawn_independently(variables):
  drawn = initial.normal()(jax.random.key(1), variables)
  first, second = (kernel(drawn, 'depthwise_conv', f'block{b}') for b in (1, 2))
  assert (first != second).all()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'std': -1.0}, 'std: expected a number of at least 0, got -1.0'),
    ({'std': float('nan')}, 'std: expected a number of at least 0, got nan'),
    ({'mean': float('inf')}, 'mean: expected a number, got inf'),
    ({'mean': True}, 'mean: expected a number, got True'),
  ],
)
def test_invalid_numbers_are_refused(arguments, message):
  with pytest.raises(UsageError) as caught:
    initial.normal(**arguments)
  assert message in str(caught.value)


SMALL = {'name': 'resnet8', 'stem_width': 2, 'widths': (2, 2, 2)}


def plan(**keys):
  return study.plan(
    {
      'data': {'name': 'digits'},
      'teacher': SMALL,
      'student': {
        'name': 'without',
        'network': {**SMALL, 'name': 'resnet14'},
        'names': ('group1.block2',),
      },
      'method': {'name': 'kd'},
      **keys,
    }
  )


def test_a_config_chooses_the_initial_weights_of_the_student():
  """The student is an edited network; the teacher starts as usual."""
  with_ones = plan(initial={'name': 'normal', 'mean': 1.0, 'std': 0.0})
  usual = plan()
  student = study.initial_model(with_ones, 'student', 0)
  assert 'group1.block2' not in student.variables['params']
  block = student.variables['params']['group1.block1']
  np.testing.assert_array_equal(block['conv1']['kernel'], 1.0)
  teachers = [study.initial_model(p, 'teacher', 0) for p in (with_ones, usual)]
  jax.tree.map(np.testing.assert_array_equal, *(t.variables for t in teachers))
  assert with_ones.rows[-1].resolved['initial']['std'] == 0.0
  # Work directories without the key can be resumed.
  assert 'initial' not in usual.rows[-1].resolved


def test_a_student_with_the_teachers_network_has_other_initial_weights():
  same_network = plan(student=SMALL)
  student, teacher = (
    study.initial_model(same_network, role, 0).variables['params']
    for role in ('student', 'teacher')
  )
  for stage in ('stem', 'group1.block1', 'head'):
    for a, b in zip(
      jax.tree.leaves(student[stage]), jax.tree.leaves(teacher[stage])
    ):
      assert a.ndim == 1 or np.abs(a - b).max() > 1e-3


def test_an_unknown_scheme_is_refused():
  with pytest.raises(UsageError, match=r"unknown initial\.name 'normel'"):
    plan(initial={'name': 'normel'})
