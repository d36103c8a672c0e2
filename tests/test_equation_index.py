"""The README's table of equations says where each one stands."""

import importlib
import pathlib
import re

import pytest

README = pathlib.Path(__file__).parent.parent / 'README.md'
PAPERS = (
  'SSKD',
  'Neighbourhood Distillation',
  'Masked Layer Distillation',
  'DistPro',
  'Orthogonality',
)
ROWS = re.findall(
  rf'^\| ({"|".join(PAPERS)}) \| (\d+) \| `([\w.]+)` \|$',
  README.read_text(),
  re.MULTILINE,
)


def _docstring(path: str) -> str:
  module, _, function = path.rpartition('.')
  found = getattr(importlib.import_module(f'jaxdistill.{module}'), function)
  return ' '.join(found.__doc__.split())


@pytest.mark.parametrize(('paper', 'number', 'path'), ROWS)
def test_a_function_cites_the_equation_it_is_listed_for(paper, number, path):
  assert f'Equation ({number}) of {paper}' in _docstring(path)


def test_every_equation_cited_in_the_code_is_listed():
  package = README.parent / 'jaxdistill'
  cited = set()
  for file in package.rglob('*.py'):
    text = ' '.join(file.read_text().split())
    cited |= set(
      re.findall(rf'Equation \((\d+)\) of ({"|".join(PAPERS)})', text)
    )
  assert cited
  assert cited == {(number, paper) for paper, number, _ in ROWS}
