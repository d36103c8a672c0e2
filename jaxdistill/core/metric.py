"""How the metric is described by which models are compared."""

from typing import Any, NamedTuple


class Metric(NamedTuple):
  """A metric by which models are compared, and how it is shown.

  Attributes:
    name: the name among the metrics of the task.
    higher: whether higher values are better.
    percent: whether it is a fraction that is shown in percent.
  """

  name: str
  higher: bool = True
  percent: bool = True

  @property
  def unit(self) -> str:
    """What is written after a value that is shown: '%', or nothing."""
    return '%' if self.percent else ''

  @property
  def digits(self) -> int:
    """How many decimals a value is shown with."""
    return 2 if self.percent else 4

  def quality(self, value: Any) -> Any:
    """Returns a number that is higher for a better value.

    Args:
      value: a number, or an array of them.
    """
    return value if self.higher else -value

  def shown(self, value: Any) -> Any:
    """Returns the number that is shown for a value.

    Args:
      value: a number, or an array of them.
    """
    return 100 * value if self.percent else value


# The fraction of the images whose label has the highest logit: the score of
# classification, and of a run that names no other.
TOP1 = Metric('top1')
