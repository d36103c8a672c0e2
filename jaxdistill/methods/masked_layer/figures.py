"""Pictures of the masks of Masked Layer Distillation."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdistill.core import optional
from jaxdistill.core.checks import UsageError

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def draw(summaries: Mapping[str, Mapping[str, Any]]) -> 'Figure':
  """Draws each breakpoint's mean mask over pixels and over channels.

  Args:
    summaries: breakpoint -> the summary of its mask, as in the file masks.json
      of a run; see `noise.mask_summary`.

  Returns:
    A figure with one row for each breakpoint.

  Raises:
    UsageError: a mask does not belong to a map `[H, W, C]`.
  """
  for name, summary in summaries.items():
    if np.ndim(summary['pixels']) != 2:
      raise UsageError(
        f'expected masks of maps [H, W, C], got that of a vector at {name!r}'
      )
  figure = optional.require('matplotlib.figure', 'the figure of masks')
  size = (6, 1 + 1.5 * len(summaries))
  drawing = figure.Figure(figsize=size, layout='constrained')
  axes = drawing.subplots(len(summaries), 2, squeeze=False, width_ratios=(1, 3))
  for (left, right), (name, summary) in zip(axes, summaries.items()):
    image = left.imshow(summary['pixels'], vmin=0, vmax=1)
    left.set(ylabel=name, xticks=(), yticks=())
    channels = np.sort(summary['channels'])[::-1]
    right.bar(np.arange(len(channels)), channels, width=1.0)
    right.axhline(0.5, color='gray', ls=':')
    right.set(ylim=(0, 1), xticks=())
    right.set_title(f'{summary["above_half"]:.0%} above 0.5', fontsize=8)
  axes[-1][0].set_xlabel('pixels')
  axes[-1][1].set_xlabel('channels, ordered by their mean mask')
  drawing.colorbar(image, ax=axes[:, 0].tolist(), location='left')
  return drawing
