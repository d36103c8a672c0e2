"""What was run, and how to run it again, as parts of a page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import pathlib
import shlex
from typing import Any

from jaxdistill.study import config
from jaxdistill.study.page import markup
from jaxdistill.study.page.markup import Element, element
from jaxdistill.study.report import Line

# The order in which the keys of a row are shown; others come after them.
_FIRST_SETTINGS = (
  *('data', 'task', 'student', 'teacher', 'method', 'subset', 'epochs'),
  *('batch_size', 'optimizer', 'schedule', 'augment'),
)


def facts(lines: Sequence[Line]) -> Iterator[Element]:
  """Yields what was run: what all rows share, and a table of what differs."""
  rows = {line.title: line.row for line in lines if line.row is not None}
  if not rows:
    return
  of_rows = [settings(row['config']) for row in rows.values()]
  shared = {
    key: value
    for key, value in of_rows[-1].items()
    if all(other.get(key, value) == value for other in of_rows)
  }
  runs = [seed for row in rows.values() for seed in row['seeds'].values()]
  common = {
    **shared,
    'versions': '; '.join(_distinct(values(run['versions']) for run in runs)),
    'device': '; '.join(_distinct(run['device'] for run in runs)),
    'date': ', '.join(sorted(_distinct(run['date'] for run in runs))),
  }
  yield element('h2', 'What was run')
  parts = [
    part
    for key, text in common.items()
    for part in (element('dt', _words(key)), element('dd', text))
  ]
  yield element('dl', *parts)
  differing = [key for key in of_rows[-1] if key not in shared]
  cells = [
    (title, *(own.get(key, '') for key in differing), ', '.join(row['seeds']))
    for (title, row), own in zip(rows.items(), of_rows)
  ]
  table_rows = [markup.row(line, numbers=False) for line in cells]
  yield markup.table(
    ('row', *map(_words, differing), 'seeds'), table_rows, numbers=False
  )


def settings(keys: Mapping[str, Any]) -> dict[str, str]:
  """Returns the keys of a row as texts; sections look like calls."""
  texts = {key: _call(value) for key, value in keys.items() if value}
  for role in ('student', 'teacher'):
    if isinstance(keys.get(role), Mapping):
      texts[role] = _call(_network(keys[role]))
  first = [key for key in _FIRST_SETTINGS if key in texts]
  return {key: texts[key] for key in dict.fromkeys((*first, *texts))}


def _network(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the section of a network without its training and its outputs.

  The number of outputs in a section is a default that the data replace.
  """
  hidden = ('training', 'num_classes')
  kept = {key: value for key, value in section.items() if key not in hidden}
  if isinstance(kept.get('network'), Mapping):
    kept['network'] = _network(kept['network'])
  return kept


def reproduction(
  workdir: pathlib.Path, lines: Sequence[Line]
) -> Iterator[Element]:
  """Yields the command that repeats the run, and its config."""
  yield element('h2', 'How to reproduce it')
  kept = workdir / config.KEPT
  if not kept.exists():
    yield element(
      'p',
      'The work directory does not keep its config, because the config holds '
      'values that are not Python literals. All keys of a row are in '
      'rows/ROW/row.json.',
    )
    return
  is_fast = any(
    line.row is not None and line.row['config'].get('fast_cpu')
    for line in lines
  )
  again = f'runs/{workdir.resolve().name}-again'
  command = ['jaxdistill', 'run', config.KEPT, f'--workdir={again}']
  text = shlex.join([*command, *(['--fast_cpu'] if is_fast else [])])
  yield element(
    'p',
    *('Save this config as ', element('code', config.KEPT), ' (the work '),
    'directory holds a copy) and give the command',
  )
  yield element('pre', element('code', text))
  yield element('pre', element('code', kept.read_text(errors='replace')))


def values(values: Mapping[str, Any]) -> str:
  return ', '.join(f'{key} {value}' for key, value in values.items())


def _call(section: Any) -> str:
  """Returns a section of a config as a call: 'kd(temperature=4.0)'.

  Keys that are None are left out, and so are checksums.
  """
  if not isinstance(section, Mapping):
    return '' if section is None else str(section)
  arguments = ', '.join(
    f'{key}={_call(value)}'
    for key, value in section.items()
    if value is not None and key not in ('name', 'checksum')
  )
  name = section.get('name', '')
  return f'{name}({arguments})' if arguments else str(name)


def _words(key: str) -> str:
  return key.replace('_', ' ')


def _distinct(texts: Iterable[str]) -> list[str]:
  return list(dict.fromkeys(texts))
