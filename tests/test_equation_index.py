"""The index of equations in the documentation agrees with the docstrings."""

import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
INDEX = ROOT / 'docs/papers/equations.md'
PAPERS = (
  'SSKD',
  'Neighbourhood Distillation',
  'Masked Layer Distillation',
  'DistPro',
  'Orthogonality',
)
ROWS = re.findall(
  rf'^\| ({"|".join(PAPERS)}) \| (\d+) \| `([\w.]+)` \|$',
  INDEX.read_text(),
  re.MULTILINE,
)
PAGES = {
  'SSKD': 'sskd',
  'Neighbourhood Distillation': 'neighbourhood',
  'Masked Layer Distillation': 'masked_layer',
  'DistPro': 'distpro',
  'Orthogonality': 'orthogonality',
}


def docstring(path: str) -> str:
  module, _, name = path.rpartition('.')
  function = getattr(importlib.import_module(f'jaxdistill.{module}'), name)
  return ' '.join(function.__doc__.split())


@pytest.mark.parametrize(('paper', 'number', 'path'), ROWS)
def test_a_function_cites_the_equation_it_is_listed_for(paper, number, path):
  assert f'Equation ({number}) of {paper}' in docstring(path)


def test_every_equation_cited_in_the_code_is_listed():
  cited = set()
  for file in (ROOT / 'jaxdistill').rglob('*.py'):
    text = ' '.join(file.read_text().split())
    cited |= set(
      re.findall(rf'Equation \((\d+)\) of ({"|".join(PAPERS)})', text)
    )
  assert cited
  assert cited == {(number, paper) for paper, number, _ in ROWS}


@pytest.mark.parametrize('paper', PAPERS)
def test_the_page_of_a_paper_lists_the_functions_of_the_index(paper):
  page = (INDEX.parent / f'{PAGES[paper]}.md').read_text()
  listed = {path for name, _, path in ROWS if name == paper}
  section = page.partition('## Equations')[2]
  assert set(re.findall(r'`([\w.]+)`', section)) == listed
