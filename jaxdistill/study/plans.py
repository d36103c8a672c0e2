"""The types of a plan: a config of which everything has been built."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxdistill.core.types import (
  Augment,
  Dataset,
  Method,
  Model,
  Network,
  Task,
)
from jaxdistill.data.transforms.top_scores import TopScores
from jaxdistill.networks.initial import Scheme
from jaxdistill.phases import recipes
from jaxdistill.study.drafts import Role
from jaxdistill.study.sweeps import Trial
from jaxdistill.training.trackers import Tracker


class Views(NamedTuple):
  """How the teacher's outputs for the training images of a row are stored.

  Attributes:
    per_image: the number of views of each image.
    subset: the split that the row trains on.
    augment: makes the views from uint8 images, without standardisation.
    outputs: the shape and dtype of what is stored, `[N, per_image, ...]`.
    top: which scores are stored, see `top_scores`; None: all outputs.
  """

  per_image: int
  subset: str
  augment: Augment
  outputs: jax.ShapeDtypeStruct
  top: TopScores | None = None

  @property
  def nbytes(self) -> int:
    """The size of the files in bytes."""
    return self.outputs.size * self.outputs.dtype.itemsize


class Row(NamedTuple):
  """One line of the final table: a method, run once for each seed.

  Attributes:
    label: the name of the row.
    role: the model that the row trains, 'student' or 'teacher'.
    method: the phases.
    seeds: the seeds of the runs.
    resolved: everything that the row's numbers depend on, as JSON.
    trial: the values that a sweep tries in this row; None outside a sweep.
    views: how the teacher's outputs are stored; None: the teacher runs in each
      step.
  """

  label: str
  role: Role
  method: Method
  seeds: tuple[int, ...]
  resolved: dict[str, Any]
  trial: Trial | None = None
  views: Views | None = None


class Plan(NamedTuple):
  """A checked config, ready to run.

  Attributes:
    dataset: the data.
    task: what the labels mean.
    preprocess: what evaluation does to images in place of augmentation.
    networks: role -> network, of the models that begin with initial weights.
    teacher: a teacher that was read from a file, or None.
    foreign_teacher: why the outputs of this teacher are not scores of the
      data's classes, in words; '' if they are.
    initial: role -> what draws a model's initial weights, if the network itself
      does not.
    rows: what to train. The teacher comes first if it has to be trained.
    options: keyword arguments of `loop.FitOptions`.
    together: whether the seeds of a row, and rows that differ only in
      floating-point numbers, train in one program.
    notes: lines about the teacher that the user should read.
    config: the plain config that the plan was made from.
    trackers: services that get the numbers of the log.
    teacher_names: the names of the teacher's classes in its file, or empty.
  """

  dataset: Dataset
  task: Task
  preprocess: Augment
  networks: dict[str, Network]
  teacher: Model | None
  rows: tuple[Row, ...]
  options: dict[str, Any]
  initial: Mapping[Role, Scheme] = {}
  together: bool = False
  foreign_teacher: str = ''
  notes: tuple[str, ...] = ()
  config: Mapping[str, Any] = {}
  trackers: tuple[Tracker, ...] = ()
  teacher_names: tuple[str, ...] = ()

  @property
  def image(self) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one preprocessed image, `[1, H, W, C]`."""
    return recipes.example(self.dataset, self.preprocess, 1)['image']

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of the classes that the student predicts, or empty."""
    if self.task.targets:
      return self.dataset.label_names
    return self.teacher_names if self.task.class_scores else ()

  @property
  def about_data(self) -> dict[str, Any]:
    """What a user of a model's file has to know about the data, as JSON."""
    return {
      'label_names': list(self.class_names) if self.task.class_scores else [],
      'class_scores': self.task.class_scores,
      'mean': list(self.dataset.mean),
      'std': list(self.dataset.std),
    }
