"""How the weights of pathways change while a student trains.

The paper's Figure 6: one picture for each of the teacher's features.
"""

from matplotlib import figure
import numpy as np

from jaxdistill.process import Process


def by_teacher(process: Process) -> dict[int, np.ndarray]:
  """Sum of the weights into each of the teacher's features.

  Args:
    process: K knots of L pathways.

  Returns:
    Level of the teacher -> `[K]`.
  """
  return {
    level: np.asarray(process.weights)[:, places].sum(-1)
    for level, places in _places(process).items()
  }


def draw(process: Process, *, xlabel: str = 'step') -> figure.Figure:
  """The weights over the steps of the search, a line for each pathway.

  Args:
    process: what was searched.
    xlabel: below each axis.
  """
  places = _places(process)
  drawn = figure.Figure(
    figsize=(1 + 3 * len(places), 3.2), layout='constrained'
  )
  all_axes = np.atleast_1d(drawn.subplots(1, len(places), sharey=True))
  transforms = list(dict.fromkeys(p.transform for p in process.pathways))
  styles = ('-', '--', ':', '-.')
  for axes, (level, members) in zip(all_axes, places.items()):
    for place in members:
      path = process.pathways[place]
      axes.plot(
        process.steps,
        process.weights[:, place],
        color=f'C{path.student_level - 1}',
        ls=styles[transforms.index(path.transform) % len(styles)],
        marker='.',
        label=f'student {path.student_level}, {path.transform}',
      )
    name = process.pathways[members[0]].teacher
    axes.set(title=f'teacher {level} ({name})', xlabel=xlabel)
    axes.legend(fontsize='x-small')
  all_axes[0].set_ylabel('weight')
  return drawn


def _places(process: Process) -> dict[int, list[int]]:
  """Level of the teacher -> places of its pathways, shallowest first."""
  levels = [path.teacher_level for path in process.pathways]
  return {
    level: [i for i, other in enumerate(levels) if other == level]
    for level in sorted(set(levels))
  }
