"""Masks of Masked Layer Distillation, per channel and per pixel."""

from collections.abc import Mapping
from typing import Any

from matplotlib import figure
import numpy as np

from jaxdistill.types import UsageError


def draw(summaries: Mapping[str, Mapping[str, Any]]) -> figure.Figure:
  """A row for each breakpoint: the mean mask of pixels, and of channels.

  Args:
    summaries: breakpoint -> what is reported of its mask, as in masks.json of
      a run; see `terms.noise.mask_summary`.

  Raises:
    UsageError: a mask is not of a map `[H, W, C]`.
  """
  for name, summary in summaries.items():
    if np.ndim(summary['pixels']) != 2:
      raise UsageError(f'the mask of {name!r} is not of a map')
  size = (6, 1 + 1.5 * len(summaries))
  drawn = figure.Figure(figsize=size, layout='constrained')
  axes = drawn.subplots(len(summaries), 2, squeeze=False, width_ratios=(1, 3))
  for (left, right), (name, summary) in zip(axes, summaries.items()):
    shown = left.imshow(summary['pixels'], vmin=0, vmax=1)
    left.set(ylabel=name, xticks=(), yticks=())
    channels = np.sort(summary['channels'])[::-1]
    right.bar(np.arange(len(channels)), channels, width=1.0)
    right.axhline(0.5, color='gray', ls=':')
    right.set(ylim=(0, 1), xticks=())
    right.set_title(f'{summary["above_half"]:.0%} above 0.5', fontsize=8)
  axes[-1][0].set_xlabel('pixels')
  axes[-1][1].set_xlabel('channels, by their mean mask')
  drawn.colorbar(shown, ax=axes[:, 0].tolist(), location='left')
  return drawn
