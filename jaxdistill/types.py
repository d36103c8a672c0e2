"""The types everything hangs on; small tuples of data and pure functions.

Names: `B` batch, `H, W, C` height, width, channels. The student always stands
before the teacher.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

Array = jax.Array
PyTree = Any
Static = Any
# {'params': {stage: ...}, 'batch_stats': {stage: ...}, ...}
Variables = dict[str, dict[str, Any]]
# Name -> output `[B, ...]`, in the order of execution.
Features = dict[str, Array]
# 'image' `[B, H, W, C]`, 'label' `[B]` or `[B, num_classes]`, 'index' `[B]`.
Batch = dict[str, Array]
# Name -> scalar.
Metrics = dict[str, Array]
# Pairs of (student feature, teacher feature): the one way to pair networks.
Cut = tuple[tuple[str, str], ...]


class UsageError(ValueError):
  """A choice of the user is wrong; the message names it and the valid ones."""


class Stage(NamedTuple):
  """One piece of a network.

  Attributes:
    name: unique in its network. Stages that share the part before a dot
      ('group1.block1', 'group1.block2') form the group of that name.
    module: a Flax Linen module called with the inputs and `train`. It returns
      an array, or a dict of arrays: '' is the stage's own output, a key that
      starts with a dot is appended to the stage's name, any other key is a
      feature's full name.
    inputs: the features it reads; empty: the output of the stage before, and
      'image' for the first.
  """

  name: str
  module: Any
  inputs: tuple[str, ...] = ()


class Network(NamedTuple):
  """An ordered tuple of stages; the output of the last one is the answer."""

  stages: tuple[Stage, ...]


class Model(NamedTuple):
  """A network and its variables."""

  network: Network
  variables: Variables


# What phases hand on: 'student', 'teacher', ... -> Model or nested dicts.
Carry = dict[str, Any]


class Task(NamedTuple):
  """What a label means.

  Attributes:
    loss: (outputs, batch) -> one loss per example `[B]`, of the labels.
    statistics: (outputs, batch) -> tree of arrays `[B, ...]`, one row per
      example.
    summarize: the statistics of a whole split -> {metric: float}.
    predict: outputs -> predictions `[B, ...]`.
    agreement: (predictions, predictions) of two models on a split -> float.
    score: the metric that chooses an epoch; higher is better.
  """

  loss: Callable[[Array, Batch], Array]
  statistics: Callable[[Array, Batch], dict[str, Array]]
  summarize: Callable[[dict[str, Any]], dict[str, float]]
  predict: Callable[[Array], Array]
  agreement: Callable[[Any, Any], float]
  score: str


Augment = Callable[[Array, Batch], Batch]  # (rng, batch) -> batch


class Stream(NamedTuple):
  """Where a phase draws its batches from.

  Attributes:
    batch_size: of all devices together.
    augment: (rng, batch of uint8 images) -> batch of float images.
    source: 'data', or the key of the carry that holds a dict of arrays.
    subset: of the data set: 'train', 'few', ...
    part: from which to which share of the subset, in an order of chance that
      is always the same; (0, 0.8) and (0.8, 1) have no example in common.
  """

  batch_size: int
  augment: Augment
  source: str = 'data'
  subset: str = 'train'
  part: tuple[float, float] = (0.0, 1.0)


class Recipe(NamedTuple):
  """How phases are trained, whatever their loss.

  Attributes:
    epochs: length of a phase; a method may give its phases shares of it.
    steps_per_epoch: of `stream`.
    optimizer: num_steps -> optimiser, its schedule scaled to that length.
    stream: the batches.
    task: what the labels mean.
    example: shapes and dtypes of one augmented batch.
    examples: 'index' and 'label' of all that is trained on, on the host.
    validation: whole batches of the validation split, prepared as evaluation
      prepares any images.
    validation_steps: how many of them make one pass; 0: there is no such split.
  """

  epochs: float
  steps_per_epoch: int
  optimizer: Callable[[int], optax.GradientTransformation]
  stream: Stream
  task: Task
  example: Mapping[str, jax.ShapeDtypeStruct]
  examples: Mapping[str, Any]
  validation: Stream
  validation_steps: int

  @property
  def num_steps(self) -> int:
    return max(1, round(self.epochs * self.steps_per_epoch))


def _never(state: PyTree) -> bool:
  del state
  return False


def _always_none(step: int) -> Static:
  del step


DIFFERENCES = 'differences.json'  # see `Phase.report`


class Phase(NamedTuple):
  """One stretch of training, as pure functions.

  Attributes:
    name: unique in its method, a valid file name.
    num_steps: an upper bound.
    streams: name -> batches; {} draws from `rng` alone.
    init: (rng, carry) -> (state, frozen), trees of arrays.
    step: (state, frozen, batches, rng, static) -> (state, metrics); jitted,
      once per value of `static`, with the same metrics for each. A metric
      'loss' must stay finite.
    finish: (state, frozen, carry) -> carry; on the host.
    views: name -> (state, frozen) -> a model that is evaluated while it runs;
      of a role in the carry the best is kept.
    static: step index -> a hashable choice of program.
    stop: state -> whether to end now; on the host, after each epoch.
    report: (state, carry) -> {file name: JSON}; carry is what `finish` made.
      `DIFFERENCES`: {name: {role: factor}}, sums of the roles' scores that the
      results then hold.
  """

  name: str
  num_steps: int
  streams: Mapping[str, Stream]
  init: Callable[[Array, Carry], tuple[PyTree, PyTree]]
  step: Callable[..., tuple[PyTree, Metrics]]
  finish: Callable[[PyTree, PyTree, Carry], Carry]
  views: Mapping[str, Callable[[PyTree, PyTree], Model]] = {}
  static: Callable[[int], Static] = _always_none
  stop: Callable[[PyTree], bool] = _never
  report: Callable[[PyTree, Carry], dict[str, Any]] = lambda state, carry: {}


# Each phase is built when the one before has ended; methods concatenate with +.
Method = tuple[Callable[[Carry], Phase], ...]


class Dataset(NamedTuple):
  """Splits of one data set.

  Attributes:
    splits: 'train', 'validation', 'test', ... -> {'image': uint8
      `[N, H, W, C]`, 'label': int32 `[N]`, 'index': int32 `[N]`} on the host.
      'index' is the place in the original split. 'image' may be a column that
      is decoded when rows are taken, see `data.images`.
    num_classes: number of classes.
    mean: per channel in [0, 255], of the training images.
    std: the same.
    label_names: one per class, or empty.
  """

  splits: dict[str, dict[str, Any]]
  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  label_names: tuple[str, ...] = ()
