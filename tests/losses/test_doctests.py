"""The examples in the docstrings of the losses."""

import importlib
import pkgutil

import pytest

from jaxdistill import losses

MODULES = sorted(
  f'{losses.__name__}.{module.name}'
  for module in pkgutil.iter_modules(losses.__path__)
)


@pytest.mark.parametrize('name', losses.__all__)
def test_every_public_name_has_an_example_that_runs(name, run_examples):
  assert run_examples(getattr(losses, name)) > 0


@pytest.mark.parametrize('name', [losses.__name__, *MODULES])
def test_examples_of_modules_run(name, run_examples):
  run_examples(importlib.import_module(name))
