"""Empty figures; matplotlib is imported when the first one is made."""

from typing import TYPE_CHECKING

from jaxdistill.core import optional

if TYPE_CHECKING:
  from matplotlib import figure


def empty(width: float, height: float) -> 'figure.Figure':
  """Makes an empty figure of a size in inches.

  Raises:
    UsageError: matplotlib is not installed.
  """
  module = optional.require('matplotlib.figure', 'a figure')
  return module.Figure(figsize=(width, height), layout='constrained')
