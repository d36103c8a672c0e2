"""Average precision of detections by pycocotools, which is COCO's own code."""

from collections.abc import Iterator
import contextlib
import io
from typing import Any

import numpy as np

from jaxdistill.core import optional
from jaxdistill.tasks.detection.average_precision import Found, Truth

# The first entries of `COCOeval.stats`.
_NAMES = ('ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large')


def require(purpose: str = 'average precision by pycocotools') -> Any:
  """Returns the module `pycocotools.cocoeval`.

  Args:
    purpose: what needs it, for the message.

  Raises:
    UsageError: the package is not installed.
  """
  return optional.require('pycocotools.cocoeval', purpose)


def average_precisions(
  images: Iterator[tuple[Found, Truth]],
) -> dict[str, float]:
  """Returns the metrics of `average_precision`, computed by pycocotools.

  Args:
    images: the detections and the objects of each image.

  Raises:
    UsageError: pycocotools is not installed.
  """
  cocoeval = require()
  annotations: list[dict[str, Any]] = []
  results: list[dict[str, Any]] = []
  image = 0
  for image, (found, truth) in enumerate(images, start=1):
    for box, label, is_crowd, area in zip(
      *(truth.boxes, truth.classes, truth.crowd, truth.areas)
    ):
      annotations += [
        {**x, 'id': len(annotations) + 1, 'area': float(area)}
        | {'iscrowd': int(is_crowd)}
        for x in _entries(image, box, label, truth.scale)
      ]
    for box, label, score in zip(found.boxes, found.classes, found.scores):
      results += [
        {**x, 'score': float(score)}
        for x in _entries(image, box, label, truth.scale)
      ]
  if not annotations:
    return dict.fromkeys(_NAMES[:3], 0.0)
  with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
    data = _indexed(annotations, image, annotations + results)
    evaluation = cocoeval.COCOeval(data, _found(data, results), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  # -1 stands for a size that no object has.
  stats = zip(_NAMES, evaluation.stats)
  metrics = {name: float(value) for name, value in stats if value >= 0}
  # The axes are overlaps, recalls, classes, sizes and numbers of detections.
  precisions = evaluation.eval['precision'][:, :, :, 0, -1].mean((0, 1))
  by_class = zip(evaluation.params.catIds, precisions.tolist(), strict=True)
  return metrics | {f'ap/{k - 1}': ap for k, ap in by_class if ap >= 0}


def _entries(
  image: int, box: np.ndarray, label: int, scale: float
) -> list[dict[str, Any]]:
  """Returns one entry for a box in the format of COCO; none for a row of -1."""
  if label < 0:
    return []
  top, left, bottom, right = (np.asarray(box, np.float64) / scale).tolist()
  sides = [left, top, right - left, bottom - top]
  # The numbers of images and categories begin at 1, as in COCO.
  return [{'image_id': image, 'category_id': int(label) + 1, 'bbox': sides}]


def _indexed(
  annotations: list[dict[str, Any]], count: int, entries: list[dict[str, Any]]
) -> Any:
  """Returns the objects of a number of images as pycocotools holds them."""
  data = optional.require('pycocotools.coco').COCO()
  labels = sorted({entry['category_id'] for entry in entries})
  data.dataset = {
    'images': [{'id': i} for i in range(1, count + 1)],
    'annotations': annotations,
    'categories': [{'id': label} for label in labels],
  }
  data.createIndex()
  return data


def _found(data: Any, results: list[dict[str, Any]]) -> Any:
  """Returns the detections; pycocotools does not read an empty list."""
  return data.loadRes(results) if results else _indexed([], 0, [])
