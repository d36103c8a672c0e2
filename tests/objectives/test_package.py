"""The names, annotations and the documented example of the package."""

import inspect
import re
import textwrap
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdistill as jd
from jaxdistill import objectives
from jaxdistill.study import registry


@pytest.mark.parametrize('name', sorted(registry.OBJECTIVES))
def test_a_config_calls_the_function_of_the_same_name(name):
  function = getattr(objectives, name)
  assert name in objectives.__all__
  assert registry.OBJECTIVES[name] is function
  assert function.__name__ == name
  assert typing.get_type_hints(function)['return'] is jd.Objective


@pytest.mark.parametrize('name', sorted(registry.OBJECTIVES))
def test_every_objective_names_its_loss_and_describes_its_arguments(name):
  function = getattr(objectives, name)
  documentation = inspect.getdoc(function)
  assert 'losses.' in documentation
  described = re.findall(r'^  (\w+): ', documentation, re.MULTILINE)
  assert described == [k for k in typing.get_type_hints(function)][:-1]


def test_the_examples_of_the_package_run(run_examples):
  assert run_examples(objectives) > 0


def test_the_documented_objective_of_a_user_works(student, teacher, recipe):
  documented = re.search(
    r'^  import jax\.numpy.*?^    return objective$',
    objectives.__doc__,
    re.MULTILINE | re.DOTALL,
  )
  namespace = {}
  exec(textwrap.dedent(documented.group()), namespace)
  pair = objectives.pair_of(student.network, teacher.network, recipe)
  term = namespace['same_mean'](weight=2.0)(pair)
  assert term.weight == 2.0
  features = {
    'student/head': jnp.array([[1.0, 3.0]]),
    'teacher/head': jnp.array([[5.0, 1.0]]),
  }
  np.testing.assert_allclose(term.loss(features, {}, {}), [1.0])


def test_adapters_can_read_both_networks_and_the_batch(
  student, teacher, recipe
):
  pair = objectives.pair_of(student.network, teacher.network, recipe)
  shapes = objectives.adapter_inputs(pair)
  assert shapes['student/head'].shape == (8, 3)
  assert shapes['teacher/group2'].shape == (8, 4, 4, 6)
  assert shapes['batch/image'] == jax.ShapeDtypeStruct((8, 8, 8, 1), 'float32')
