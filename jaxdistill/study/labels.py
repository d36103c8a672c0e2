"""Labels of rows as names of files."""

import re


def slug(label: str) -> str:
  """Returns a row's label as a file name."""
  return re.sub(r'[^\w.-]+', '-', label)
