"""Predictors: students and teachers as functions of raw images."""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Augment, Model, Output, Task
from jaxdistill.study import reading as reading_lib
from jaxdistill.study import stablehlo
from jaxdistill.study.formats import source as source_lib
from jaxdistill.study.formats.source import Run
from jaxdistill.study.plans import Plan
from jaxdistill.study.reading import Reading
from jaxdistill.tasks import evaluation


class Predictor(NamedTuple):
  """A model that takes raw images.

  Attributes:
    run: raw images, uint8 `[B, H, W, C]` -> the outputs that an exported file
      gives, `[B, ...]`.
    image_shape: (H, W, C) of the images that it takes.
    task: says what its predictions are.
    label_names: the names of the classes, or empty.
    model: the network and its variables; None if a file holds a program.
    reading: how image files are read.
  """

  run: Run
  image_shape: tuple[int, ...]
  task: Task
  label_names: tuple[str, ...] = ()
  model: Model | None = None
  reading: Reading = Reading()

  def __repr__(self) -> str:
    """Returns the task and the size of images, without all weights."""
    shape = list(self.image_shape)
    return f'Predictor(task={self.task.name!r}, image_shape={shape})'

  def __call__(self, images: Any) -> np.ndarray:
    """Returns predictions `[N, ...]`.

    They are the numbers of classes for a classifier, vectors of length 1 for
    the tasks `embedding` and `verification`, maps `[N, H, W]` for segmentation
    and depth, and for detection objects `[N, 100, 6]`: the top, left, bottom
    and right side of a box in pixels, its score and its class, which is -1 in
    a row without an object.

    Args:
      images: uint8 `[N, H, W, C]`, such as `data.read_image` gives.

    Raises:
      UsageError: the images have another type or size.
    """
    predictions: np.ndarray = self._applied(
      lambda outputs, images: self.task.predict(outputs, {'image': images}),
      images,
    )
    return predictions

  def probabilities(self, images: Any) -> np.ndarray:
    """Returns the probabilities of the classes, `[N, num_classes]`.

    Args:
      images: uint8 `[N, H, W, C]`.

    Raises:
      UsageError: the images have another type or size, or the task does not
        give one class for each image.
    """
    if self.task.probabilities is None:
      raise UsageError(
        f'probabilities: expected a classifier, got the task {self.task.name!r}'
      )
    score = self.task.probabilities
    probabilities: np.ndarray = self._applied(
      lambda outputs, _: score(outputs), images
    )
    return probabilities

  def outputs(self, images: Any) -> Any:
    """Returns what an exported file gives, such as logits `[N, num_classes]`.

    Args:
      images: uint8 `[N, H, W, C]`.

    Raises:
      UsageError: the images have another type or size.
    """
    return self._applied(lambda outputs, _: outputs, images)

  def _applied(self, function: Callable[[Any, Any], Any], images: Any) -> Any:
    """Applies a function to outputs and images, some images at a time."""
    images = np.asarray(images)
    expected = (len(images) if images.ndim else 0, *self.image_shape)
    if images.dtype != np.uint8 or images.shape != expected or not len(images):
      raise UsageError(
        f'images: expected uint8 [N, {", ".join(map(str, self.image_shape))}], '
        f'got {images.dtype} {list(images.shape)}'
      )
    float_bytes = 4 * math.prod(self.image_shape)
    most = min(evaluation.MOST, max(1, evaluation.BYTES // float_bytes))
    parts = []
    for start in range(0, len(images), most):
      part = images[start : start + most]
      outputs = jax.tree.map(jnp.asarray, self.run(part))
      parts.append(jax.device_get(function(outputs, part)))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def of_plan(plan: Plan, model: Model) -> Predictor:
  """Returns one of a plan's models as a function of raw images.

  Args:
    plan: holds the preprocessing and the names of the classes.
    model: the model.
  """
  source = source_lib.source(plan, model)
  names = source.about['label_names']
  predictor = of_model(
    model, plan.preprocess, source.image_shape, plan.task, names
  )
  return predictor._replace(reading=reading_lib.checked(source.about))


def of_model(
  model: Model,
  preprocess: Augment,
  image_shape: tuple[int, ...],
  task: Task,
  label_names: Sequence[str],
) -> Predictor:
  """Returns a model as a function of raw images.

  Args:
    model: the model.
    preprocess: crops and standardises images.
    image_shape: (H, W, C) of raw images.
    task: says what its predictions are.
    label_names: the names of the classes, or empty.
  """
  run = functools.partial(_outputs, model, preprocess, task)
  return Predictor(run, image_shape, task, names_of(task, label_names), model)


def names_of(task: Task, label_names: Sequence[str]) -> tuple[str, ...]:
  """Returns the names of the classes if predictions are classes.

  Args:
    task: the task.
    label_names: the names of the classes that training had.
  """
  return () if task.final_name else tuple(label_names)


def _outputs(
  model: Model, preprocess: Augment, task: Task, images: Any
) -> Output:
  return stablehlo.outputs(
    model.network, preprocess, task.final, model.variables, jnp.asarray(images)
  )
