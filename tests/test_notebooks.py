"""Every notebook runs, shrunk by its first code cell."""

import pathlib
import re

import nbclient
import nbformat
import pytest

NOTEBOOKS = pathlib.Path(__file__).parent.parent / 'notebooks'


@pytest.mark.parametrize(
  'path', sorted(NOTEBOOKS.glob('*.ipynb')), ids=lambda p: p.stem
)
@pytest.mark.filterwarnings('ignore')  # of the notebook runner
def test_a_notebook_runs(path, monkeypatch):
  monkeypatch.setenv('MPLBACKEND', 'agg')
  notebook = nbformat.read(path, as_version=4)
  first = next(c for c in notebook.cells if c.cell_type == 'code')
  first.source, shrunk = re.subn(r'^EPOCHS = \d+', 'EPOCHS = 1', first.source)
  assert shrunk == 1
  nbclient.NotebookClient(notebook, timeout=300).execute()
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      assert cell.execution_count, f'did not run: {cell.source[:60]!r}'
