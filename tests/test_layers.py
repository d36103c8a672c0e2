"""A package imports only from lower floors, as the design says."""

import ast
from collections.abc import Iterator
import gc
import pathlib

import pytest

import jaxdistill

ROOT = pathlib.Path(jaxdistill.__file__).parent
FILES = sorted(ROOT.rglob('*.py'))
FLOORS = (
  {'_version'},
  {'core'},
  {'losses'},
  {'networks'},
  {'data'},
  {'optimizers'},
  {'tasks'},
  {'pruning'},
  {'analysis'},
  {'objectives'},
  {'phases'},
  {'methods'},
  {'training'},
  {'study'},
  {'__init__'},
  {'main'},
)
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


def imports(source: str) -> Iterator[tuple[str, ...]]:
  """What a file imports from the library: ('networks', 'graph'), ...

  Calls such as import_module('jaxdistill.networks') count too.
  """
  gc.disable()  # a collection while parsing breaks the parser of Python 3.11
  try:
    tree = ast.parse(source)
  finally:
    gc.enable()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      # A relative import does not begin with the library, and is rejected.
      base = '.' * node.level + (node.module or '')
      names = [f'{base}.{alias.name}' for alias in node.names]
    elif isinstance(node, ast.Call):
      arguments = [getattr(argument, 'value', None) for argument in node.args]
      is_import = 'import' in ast.unparse(node.func)
      names = [a for a in arguments if is_import and isinstance(a, str)]
    else:
      continue
    for name in names:
      if name.startswith('.'):
        yield (name,)
      elif name.split('.')[0] == 'jaxdistill':
        yield tuple(name.split('.')[1:])


def home_of(path: pathlib.Path) -> str:
  """The package or file directly below the library that contains a file."""
  return path.relative_to(ROOT).with_suffix('').parts[0]


def wrong(path: str, source: str) -> list[str]:
  """The imports of a file that do not go to a lower floor.

  Each method counts as its own package, so it never imports another method.

  Args:
    path: the path of the file below the library.
    source: the content of the file.
  """
  parts = pathlib.PurePath(path).with_suffix('').parts
  home = parts[0]
  bad = []
  for target in imports(source):
    downwards = bool(target) and FLOOR.get(target[0], 99) < FLOOR[home]
    inside = target[:1] == (home,)
    if home == 'methods' and parts[1] != '__init__':
      inside = target[:2] == parts[:2]
    if not (downwards or inside):
      bad.append('.'.join(target))
  return bad


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_lower_floors_or_its_own_package(path):
  assert wrong(str(path.relative_to(ROOT)), path.read_text()) == []


@pytest.mark.parametrize(
  ('path', 'source'),
  [
    ('losses/a.py', 'from jaxdistill import networks'),
    ('core/types.py', 'from jaxdistill.networks import graph'),
    ('methods/a.py', 'import jaxdistill.training.loop'),
    ('training/a.py', 'def f():\n  from jaxdistill.study import runner'),
    ('methods/a.py', 'from jaxdistill.methods import mutual'),
    ('methods/a/b.py', 'from jaxdistill.methods.c import d'),
    ('phases/joint.py', 'from jaxdistill import study as s'),
    ('data/a.py', 'from . import arrays'),
    ('losses/a.py', 'from jaxdistill import unknown'),
    ('losses/a.py', 'import jaxdistill as jd'),
    ('losses/a.py', 'import_module("jaxdistill.networks.graph")'),
  ],
)
def test_an_import_from_the_same_or_a_higher_floor_is_noticed(path, source):
  assert len(wrong(path, source)) == 1


def test_every_path_of_the_fast_tests_exists(fast_paths):
  assert [path for path in fast_paths if not path.exists()] == []


def test_every_file_of_the_library_has_a_floor():
  assert {home_of(p) for p in FILES} <= set(FLOOR)
