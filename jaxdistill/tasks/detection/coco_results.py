"""Detections in the results format of COCO."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill.core import checks


def coco_results(
  predictions: Any,
  split: Mapping[str, Any],
  *,
  category_ids: Sequence[int],
) -> list[dict[str, Any]]:
  """Returns predictions as entries of a results file of COCO.

  Write them with `json.dump`; `COCO.loadRes` of pycocotools reads the file.

  Args:
    predictions: what the task `detection` predicts for a split, `[N, D, 6]`.
    split: the split, with the columns 'image_id' `[N]` and 'scale' `[N]` of the
      data set `coco`. Without 'image_id', images are numbered from 0; without
      'scale', boxes are not resized.
    category_ids: for each class, the id of its category in the annotations.

  Returns:
    {'image_id', 'category_id', 'bbox', 'score'} for each object. The box is
    (left, top, width, height) in pixels of the original image.

  Raises:
    UsageError: a class has no id in `category_ids`.

  Example:
    >>> import numpy as np
    >>> from jaxdistill import tasks
    >>> rows = np.array([[[1, 2, 4, 8, 0.5, 0], [0, 0, 0, 0, 0, -1]]])
    >>> tasks.coco_results(rows, {}, category_ids=[7])[0]['bbox']
    [2.0, 1.0, 6.0, 3.0]
  """
  rows = np.asarray(predictions, np.float64)
  image_ids = np.asarray(split.get('image_id', np.arange(len(rows))))
  scales = np.asarray(split.get('scale', np.ones(len(rows))), np.float64)
  results = []
  for image_id, scale, image_rows in zip(image_ids, scales, rows):
    for *box, score, label in image_rows[image_rows[:, 5] >= 0].tolist():
      checks.integer(
        'category_ids: class',
        int(label),
        at_least=0,
        at_most=len(category_ids) - 1,
      )
      top, left, bottom, right = (float(x / scale) for x in box)
      results.append(
        {
          'image_id': int(image_id),
          'category_id': int(category_ids[int(label)]),
          'bbox': [left, top, right - left, bottom - top],
          'score': float(score),
        }
      )
  return results
