"""HTML and SVG as trees, whose texts and attributes are always escaped."""

from collections.abc import Iterable, Sequence
import re
from xml.etree import ElementTree

Element = ElementTree.Element
# Characters that HTML does not allow, or that cannot be written as UTF-8.
_INVALID = re.compile(r'[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]')


def element(
  tag: str, *content: 'Element | str', **attributes: str | float
) -> Element:
  """Returns an element.

  Args:
    tag: its tag.
    *content: its texts and elements, in order.
    **attributes: its attributes; `class_` stands for `class`, and underscores
      for hyphens.
  """
  node = ElementTree.Element(tag)
  for key, value in attributes.items():
    text = f'{value:.6g}' if isinstance(value, float) else str(value)
    node.set(key.rstrip('_').replace('_', '-'), _valid(text))
  for part in content:
    if not isinstance(part, str):
      node.append(part)
    elif len(node):
      node[-1].tail = (node[-1].tail or '') + _valid(part)
    else:
      node.text = (node.text or '') + _valid(part)
  return node


def figure(picture: Element, caption: str) -> Element:
  frame = element('div', picture, class_='scroll')
  return element('figure', frame, element('figcaption', caption))


def table(
  columns: Sequence[str],
  rows: Iterable[Element],
  *,
  numbers: bool = True,
) -> Element:
  """Returns a table that scrolls if it is wider than the page."""
  first, *others = columns
  css = {'class_': 'number'} if numbers else {}
  titles = [element('th', title, scope='col', **css) for title in others]
  header = element('tr', element('th', first, scope='col'), *titles)
  content = element('thead', header), element('tbody', *rows)
  return element('div', element('table', *content), class_='scroll')


def row(cells: Sequence[str], *, numbers: bool = True) -> Element:
  """Returns a row of a table, whose first cell is its header."""
  first, *others = cells
  css = {'class_': 'number'} if numbers else {}
  data = [element('td', cell, **css) for cell in others]
  return element('tr', element('th', first, scope='row'), *data)


def document(root: Element) -> str:
  """Returns an HTML document as text.

  Args:
    root: the element `html`.
  """
  text = ElementTree.tostring(root, encoding='unicode', method='html')
  return f'<!DOCTYPE html>\n{text}\n'


def _valid(text: str) -> str:
  return _INVALID.sub('\ufffd', text)
