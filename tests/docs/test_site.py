"""The generated pages of the documentation, without building the site."""

import importlib
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
DOCS = ROOT / 'docs'


@pytest.fixture(autouse=True)
def builder(monkeypatch):
  monkeypatch.setattr(sys, 'path', [str(DOCS), *sys.path])


def module(name):
  return importlib.import_module(f'docs_build.{name}')


def test_the_command_line_reference_lists_every_option():
  text = module('command_line').markdown()
  for option in ('--config', '--workdir', '--mode', '--row', '--help'):
    assert f'| `{option}` |' in text


def test_the_command_line_reference_describes_every_command():
  text = module('command_line').commands()
  for heading in (
    'run CONFIG',
    'report WORKDIR',
    'export WORKDIR',
    'list KIND',
  ):
    assert f'### `jaxdistill {heading}`' in text
  export = text.partition('### `jaxdistill export')[2].partition('###')[0]
  assert '| `WORKDIR` |' in export and '| `--format` |' in export
  assert '`--model_parallel`' not in export


def test_the_configuration_reference_describes_every_key_of_a_config():
  text = module('configuration').keys()
  rows = [line.split(' | ') for line in text.splitlines()[2:]]
  assert '| `student`' in [row[0] for row in rows]
  assert all(len(row) == 3 and row[2].strip(' |') for row in rows)


def test_the_configuration_reference_names_methods_and_their_keys():
  text = module('configuration').markdown()
  section = text.partition('### `dkd`')[2].partition('###')[0]
  assert '| `beta` |' in section
  assert '`recipe`' not in section


def test_every_page_is_reached_from_a_table_of_contents():
  pages = {
    page.relative_to(DOCS).with_suffix('').as_posix()
    for page in DOCS.rglob('*.md')
    if page.relative_to(DOCS).parts[0]
    not in ('_build', '_generated', 'notebooks')
  }
  text = '\n'.join((DOCS / f'{page}.md').read_text() for page in pages)
  for page in pages - {'index'}:
    assert page.rpartition('/')[2] in text, page


def test_links_of_root_files_lead_to_pages(tmp_path):
  links = module('pages').links
  text = (
    '[a](RESULTS.md#x) [b](docs/concepts.md) [c](configs/quickstart.py) '
    '[d](https://example.org) [e](notebooks/sskd.ipynb)'
  )
  assert links(text, tmp_path, '') == (
    '[a](/results.md#x) [b](/concepts.md) `c` '
    '[d](https://example.org) [e](/notebooks/sskd.ipynb)'
  )
  assert links('[a](../RESULTS.md)', tmp_path, 'notebooks') == (
    '[a](/results.md)'
  )


def test_figures_of_notebooks_become_pictures_with_a_caption(tmp_path):
  cells = [
    {'cell_type': 'markdown', 'source': ['# Title\n', '## Masks']},
    {'cell_type': 'code', 'outputs': [{'data': {'image/png': 'iVBORw0K'}}]},
  ]
  text = module('pages')._figures({'cells': cells}, tmp_path, 'lesson')
  assert 'lesson-1.png' in text and 'Masks' in text
  assert (tmp_path / 'lesson-1.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
  ('lines', 'expected'),
  [
    (['Mean of |x| ** 2.'], [r'Mean of \|x\| \*\* 2.']),
    (['See `a_` and name_.'], ['See ``a_`` and name\\_.']),
    (
      ['Text:', '', '  a = b_', '', 'More.'],
      ['Text:', '', '', '::', '', '  a = b_', '', '', 'More.'],
    ),
    (
      ['Sum::', '', '  |a|', '', 'More.'],
      ['Sum::', '', '  |a|', '', '', 'More.'],
    ),
    (
      ['Args:', '  x: a value', '    of many.'],
      ['Args:', '  x: a value', '    of many.'],
    ),
    (['>>> f(*x)', 'array'], ['>>> f(*x)', 'array']),
  ],
)
def test_docstrings_become_valid_restructuredtext(lines, expected):
  assert module('docstrings').safe(lines) == expected


def test_notebooks_are_copied_with_their_links_mapped(tmp_path):
  root = tmp_path / 'root'
  (root / 'notebooks').mkdir(parents=True)
  cell = {'cell_type': 'markdown', 'source': ['[r](../RESULTS.md)']}
  (root / 'notebooks/a.ipynb').write_text(json.dumps({'cells': [cell]}))
  module('pages').write(root, tmp_path / 'docs')
  copy = json.loads((tmp_path / 'docs/notebooks/a.ipynb').read_text())
  assert copy['cells'][0]['source'] == '[r](/results.md)'
