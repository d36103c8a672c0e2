"""Imports go downwards only, as the README's picture of the layers says."""

import ast
from collections.abc import Iterator
import gc
import pathlib

import pytest

import jaxdistill

ROOT = pathlib.Path(jaxdistill.__file__).parent
FILES = sorted(ROOT.rglob('*.py'))
FLOORS = (
  {'types'},
  {'losses', 'networks', 'data', 'tasks'}
  | {'optimizers', 'fast_cpu', 'process', 'bilevel'},
  {'steps', 'search', 'terms', 'evaluation', 'export', 'pruning'},
  {'methods', 'analysis', 'training', 'recipes'},
  {'sections'},
  {'tables'},
  {'experiment'},
  {'study'},
  {'main'},
)
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


def imports(source: str) -> Iterator[tuple[str, ...]]:
  """What a file imports of the library: ('networks', 'staged'), ..."""
  gc.disable()  # a collection in between breaks the parser of Python 3.11
  try:
    tree = ast.parse(source)
  finally:
    gc.enable()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      # A relative import has no such name, and is refused like an upward one.
      base = '.' * node.level + (node.module or '')
      names = [f'{base}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      if name.startswith('.'):
        yield (name,)
      elif name.split('.')[0] == 'jaxdistill':
        yield tuple(name.split('.')[1:])


def home_of(path: pathlib.Path) -> str:
  """The package or the file right below the library."""
  return path.relative_to(ROOT).with_suffix('').parts[0]


def wrong(home: str, source: str, path: str) -> list[str]:
  """The imports of a file that do not go downwards."""
  bad = []
  for target in imports(source):
    inside = target[:1] == (home,)
    downwards = bool(target) and FLOOR.get(target[0], 99) < FLOOR[home]
    # A method takes another as an argument instead of importing it; joint.py
    # and pieces.py are what they are made of.
    between_methods = (
      inside
      and home == 'methods'
      and path != '__init__.py'
      and target not in (('methods', 'joint'), ('methods', 'pieces'))
    )
    if not (downwards or inside) or between_methods:
      bad.append('.'.join(target))
  return bad


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_below_or_from_its_own_package(path):
  if path == ROOT / '__init__.py':
    assert list(imports(path.read_text())) == []
  else:
    assert wrong(home_of(path), path.read_text(), path.name) == []


@pytest.mark.parametrize(
  ('home', 'source'),
  [
    ('networks', 'from jaxdistill import losses'),
    ('types', 'from jaxdistill.networks import staged'),
    ('methods', 'import jaxdistill.training.loop'),
    ('training', 'def f():\n  from jaxdistill.methods import joint'),
    ('methods', 'from jaxdistill.methods import mutual'),
    ('steps', 'from jaxdistill import experiment as e'),
    ('data', 'from . import arrays'),
    ('losses', 'from jaxdistill import unknown'),
  ],
)
def test_an_import_that_goes_sideways_or_up_is_found(home, source):
  assert len(wrong(home, source, 'file.py')) == 1


def test_every_file_of_the_library_has_a_floor():
  assert {home_of(p) for p in FILES} - {'__init__'} <= set(FLOOR)
