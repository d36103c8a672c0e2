"""Every notebook runs, and is stored as a reader should see it.

It runs with a tenth of its epochs and a single seed. Running compares nothing
but success: the outputs that are stored are those of the whole run.
"""

import os
import pathlib
import re

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'notebooks'
PATHS = sorted(FOLDER.glob('*.ipynb'))
COLAB = (
  'https://colab.research.google.com/github/jaxdistill/jaxdistill/blob/main/'
  'notebooks/'
)
MAX_BYTES = 200_000
# Folders of the machine on which a notebook was executed.
MACHINE_PATHS = re.compile(
  r'(?<![\w.])/(?:tmp|home|root|work|Users|usr|opt|var|private|content)/'
  r'|\b[A-Z]:\\|site-packages'
)

pytestmark = pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)


def _read(path: pathlib.Path) -> nbformat.NotebookNode:
  return nbformat.read(path, as_version=4)


def _code_cells(
  notebook: nbformat.NotebookNode,
) -> list[nbformat.NotebookNode]:
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def _outputs(path: pathlib.Path) -> list[nbformat.NotebookNode]:
  return [out for cell in _code_cells(_read(path)) for out in cell.outputs]


def _text(output: nbformat.NotebookNode) -> str:
  """All text of an output, without its images."""
  if output.output_type == 'stream':
    return output.text
  data = output.get('data', {})
  return '\n'.join(v for k, v in data.items() if not k.startswith('image/'))


def _shrunk(source: str) -> str:
  """Returns a cell with a tenth of its epochs and a single seed."""

  def tenth(match: re.Match[str]) -> str:
    return f'{match[1]}{max(1, int(match[2]) // 10)}'

  for pattern in (
    r"(\bepochs(?:=|': ))(\d+)(?:\.0)?",
    r'(for epoch in range\()(\d+)',
    r'(for seed in range\()(\d+)',
  ):
    source = re.sub(pattern, tenth, source)
  return source


@pytest.mark.filterwarnings('ignore')  # warnings of the notebook runner
def test_a_shrunk_notebook_runs(path, monkeypatch, tmp_path):
  monkeypatch.setenv('MPLBACKEND', 'agg')
  notebook = _read(path)
  stored = [cell.source for cell in _code_cells(notebook)]
  for cell in _code_cells(notebook):
    cell.source = _shrunk(cell.source)
  assert [cell.source for cell in _code_cells(notebook)] != stored
  client = nbclient.NotebookClient(
    notebook, timeout=1800, resources={'metadata': {'path': str(tmp_path)}}
  )
  client.execute()
  for cell in _code_cells(notebook):
    assert cell.execution_count, f'did not run: {cell.source[:60]!r}'
  assert not os.listdir(tmp_path), 'a notebook leaves files behind'


def test_a_notebook_opens_in_colab(path):
  first = _read(path).cells[0]
  assert first.cell_type == 'markdown'
  assert first.source.startswith('# ')
  assert f'({COLAB}{path.name})' in first.source


def test_the_first_code_cell_installs_only_a_missing_package(path):
  install = _code_cells(_read(path))[0].source
  assert "if importlib.util.find_spec('jaxdistill') is None:" in install
  assert (
    '  %pip install -q "jaxdistill @ '
    'git+https://github.com/jaxdistill/jaxdistill"'
  ) in install


def test_outputs_and_figures_are_stored(path):
  for cell in _code_cells(_read(path)):
    assert cell.execution_count, f'was not executed: {cell.source[:60]!r}'
  images = [out for out in _outputs(path) if 'image/png' in out.get('data', {})]
  assert images
  assert any(_text(out).strip() for out in _outputs(path))


def test_stored_outputs_show_no_errors_or_warnings(path):
  for output in _outputs(path):
    assert output.output_type != 'error'
    assert output.get('name') != 'stderr', output.text


def test_stored_outputs_do_not_name_paths_of_a_machine(path):
  for output in _outputs(path):
    found = MACHINE_PATHS.search(_text(output))
    assert not found, _text(output)


def test_a_notebook_is_small(path):
  assert path.stat().st_size < MAX_BYTES


def test_the_index_lists_the_notebook(path):
  assert f'({path.name})' in (FOLDER / 'README.md').read_text()
