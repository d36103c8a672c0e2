"""Writes the generated pages: references, copies of root files, notebooks."""

import base64
import json
import pathlib
import re

from docs_build import command_line, configuration

# File of the repository -> page of the site, without its ending.
ROOT_PAGES = {
  'README.md': 'index',
  'RESULTS.md': 'results',
  'NETWORKS.md': 'reference/network_sizes',
  'CHANGELOG.md': 'changelog',
  'CONTRIBUTING.md': 'contributing',
}
_LINK = re.compile(r'(!?)\[([^\]]*)\]\(([^)\s]+)\)')


def write(root: pathlib.Path, docs: pathlib.Path) -> None:
  """Writes `docs/_generated` and `docs/notebooks`.

  Args:
    root: the repository.
    docs: the source folder of the site.
  """
  include = docs / '_generated/include'
  _write(include / 'command_line.md', command_line.markdown())
  _write(include / 'commands.md', command_line.commands())
  _write(include / 'configuration.md', configuration.markdown())
  _write(include / 'config_keys.md', configuration.keys())
  _write(include / 'networks.md', configuration.network_names())
  for name in ROOT_PAGES:
    path = root / name
    text = path.read_text() if path.exists() else f'# {path.stem.title()}\n'
    _write(include / name, links(text, root, ''))
  for path in sorted((root / 'notebooks').glob('*.ipynb')):
    notebook = json.loads(path.read_text())
    for cell in notebook['cells']:
      if cell['cell_type'] == 'markdown':
        source = ''.join(cell['source'])
        cell['source'] = links(source, root, 'notebooks')
    _write(docs / 'notebooks' / path.name, json.dumps(notebook))
    figures = _figures(notebook, docs / '_generated/figures', path.stem)
    _write(include / f'figures_{path.stem}.md', figures)


def links(text: str, root: pathlib.Path, folder: str) -> str:
  """Points the links of a repository's file to pages of the site.

  Args:
    text: Markdown.
    root: the repository.
    folder: where the file lies in the repository, '' for its root.
  """

  def replaced(match: re.Match) -> str:
    image, label, target = match.groups()
    if image or re.match(r'[a-z]+:|#', target):
      return match.group()
    path, _, anchor = target.partition('#')
    path = str((root / folder / path).resolve().relative_to(root.resolve()))
    anchor = f'#{anchor}' if anchor else ''
    if path in ROOT_PAGES:
      return f'[{label}](/{ROOT_PAGES[path]}.md{anchor})'
    if path.startswith('docs/') and path.endswith('.md'):
      return f'[{label}](/{path.removeprefix("docs/")}{anchor})'
    if path.endswith('.ipynb'):
      return f'[{label}](/{path})'
    return label if '`' in label else f'`{label}`'

  return _LINK.sub(replaced, text)


def _figures(notebook: dict, folder: pathlib.Path, name: str) -> str:
  """Saves a notebook's figures; returns Markdown that shows them.

  The caption is the title above the figure in the notebook.
  """
  blocks, title = [], ''
  for cell in notebook['cells']:
    if cell['cell_type'] == 'markdown':
      headings = re.findall(r'^#+ (.+)$', ''.join(cell['source']), re.MULTILINE)
      title = headings[-1] if headings else title
    for output in cell.get('outputs', ()):
      png = output.get('data', {}).get('image/png')
      if png is None:
        continue
      path = folder / f'{name}-{len(blocks) + 1}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(base64.b64decode(''.join(png)))
      blocks.append(
        f'```{{figure}} /_generated/figures/{path.name}\n:alt: {title}\n\n'
        f'{title}\n```\n'
      )
  link = f'[notebook](/notebooks/{name}.ipynb)'
  if not blocks:
    return f'The {link} draws the figures, on digits.\n'
  return '\n'.join([f'The figures are from the {link}, on digits.\n', *blocks])


def _write(path: pathlib.Path, text: str) -> None:
  """Writes a file unless it holds the text, so that builds are incremental."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if not path.exists() or path.read_text() != text:
    path.write_text(text)
