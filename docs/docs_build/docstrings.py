"""Makes the library's docstrings safe for reStructuredText.

The docstrings are plain text for people who read them in an editor: single
backticks mark code, and indented paragraphs are formulas. Sphinx would read
`|x|`, `**2` or `name_` in them as markup.
"""

from collections.abc import Iterator
import re
from typing import Any

_SECTION = re.compile(
  r'^(Args|Arguments|Attributes|Example|Examples|Note|Notes|Raises|Reference'
  r'|References|Returns|Yields):$'
)
_LIST_ITEM = re.compile(r'^(- |\d+\. )')
_CODE = re.compile(r'``[^`]+``|`[^`]+`')


def process(
  app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
  """A hook of autodoc: rewrites the lines of one docstring in place.

  The docstrings of packages are left out, because the pages introduce them.
  """
  del app, name, obj, options
  lines[:] = [] if what == 'module' else safe(lines)


def skip(
  app: Any, what: str, name: str, obj: Any, would_skip: bool, options: Any
) -> bool | None:
  """A hook of autodoc: leaves out the fields of named tuples.

  The section "Attributes" of the class describes them.
  """
  del app, what, would_skip, options
  is_field = type(obj).__name__ == '_tuplegetter'
  return True if is_field or name in ('count', 'index') else None


def safe(lines: list[str]) -> list[str]:
  """Returns a Google-style docstring as lines of valid reStructuredText."""
  result: list[str] = []
  for kind, block in _blocks(lines):
    if kind == 'text':
      result += _escape('\n'.join(block)).split('\n')
    elif kind == 'code':
      before = next((line for line in reversed(result) if line.strip()), '')
      marker = [] if before.endswith('::') else ['', '::', '']
      result += [*marker, *block, '']
    else:
      result += block
  return result


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
  """Splits a docstring into text, formulas ('code') and doctests."""
  section, previous = '', ''
  kind, block = 'text', []
  for line in lines:
    stripped = line.strip()
    indented = line.startswith(' ')
    if not stripped:
      new = 'text' if kind == 'doctest' else kind
    elif stripped.startswith('>>>') or (kind == 'doctest' and stripped):
      new = 'doctest'
    elif not indented:
      section = line.strip(':') if _SECTION.match(line) else ''
      previous = line
      new = 'text'
    elif section.startswith('Example'):
      new = 'code'
    elif section or _LIST_ITEM.match(previous):
      new = 'text'
    else:
      new = 'code'
    if new != kind:
      if block:
        yield kind, block
      kind, block = new, []
    block.append(line)
  if block:
    yield kind, block


def _escape(text: str) -> str:
  """Escapes markup outside of code, and marks code as literal."""
  result, last = [], 0
  for match in _CODE.finditer(text):
    result.append(_escape_plain(text[last : match.start()]))
    code = ' '.join(match.group().strip('`').split())
    result.append(f'``{code}``')
    following = text[match.end() : match.end() + 1]
    if following.isalnum():
      result.append('\\ ')  # "`x`s" needs a separator
    last = match.end()
  result.append(_escape_plain(text[last:]))
  return ''.join(result)


def _escape_plain(text: str) -> str:
  text = text.replace('\\', '\\\\')
  text = re.sub(r'([*|])', r'\\\1', text)
  return re.sub(r'(?<=\w)_(?=\W|$)', r'\\_', text)
