"""Pictures of a process: how the weights of pathways change over time.

This is Figure 6 of the paper, with one picture for each of the teacher's
features.
"""

from typing import TYPE_CHECKING

import numpy as np

from jaxdistill.core import optional
from jaxdistill.methods.distpro.process import Process

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def by_teacher(process: Process) -> dict[int, np.ndarray]:
  """Sums the weights of the pathways into each of the teacher's features.

  Args:
    process: a process with K knots.

  Returns:
    Level of the teacher's feature -> sums, `[K]`.
  """
  return {
    level: np.asarray(process.weights)[:, indices].sum(-1)
    for level, indices in _indices_by_teacher(process).items()
  }


def draw(process: Process, *, xlabel: str = 'step') -> 'Figure':
  """Draws the weights over the steps of the search, a line for each pathway.

  Args:
    process: the process that a search found.
    xlabel: the label of each horizontal axis.
  """
  levels = _indices_by_teacher(process)
  figure = optional.require('matplotlib.figure', 'the figure of a process')
  drawing = figure.Figure(
    figsize=(1 + 3 * len(levels), 3.2), layout='constrained'
  )
  all_axes = np.atleast_1d(drawing.subplots(1, len(levels), sharey=True))
  transforms = list(dict.fromkeys(p.transform for p in process.pathways))
  styles = ('-', '--', ':', '-.')
  for axes, (level, indices) in zip(all_axes, levels.items()):
    for index in indices:
      path = process.pathways[index]
      axes.plot(
        process.steps,
        process.weights[:, index],
        color=f'C{path.student_level - 1}',
        ls=styles[transforms.index(path.transform) % len(styles)],
        marker='.',
        label=f'student {path.student_level}, {path.transform}',
      )
    name = process.pathways[indices[0]].teacher
    axes.set(title=f'teacher {level} ({name})', xlabel=xlabel)
    axes.legend(fontsize='x-small')
  all_axes[0].set_ylabel('weight')
  return drawing


def _indices_by_teacher(process: Process) -> dict[int, list[int]]:
  """Returns level of the teacher -> indices of its pathways, in order."""
  levels = [path.teacher_level for path in process.pathways]
  return {
    level: [i for i, other in enumerate(levels) if other == level]
    for level in sorted(set(levels))
  }
