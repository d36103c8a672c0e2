"""Data that functions pass to each other: arrays, networks, data sets.

In shapes, `B` is the batch size, `N` the number of examples of a split, and
`H, W, C` are height, width and channels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
PyTree = Any
# A hashable choice of program, see `Phase.static`.
Static = Any
# {'params': {stage: ...}, 'batch_stats': {stage: ...}, ...}
Variables = dict[str, dict[str, Any]]
# Name -> output `[B, ...]`, in the order of execution.
Features = dict[str, Array]
# 'image' `[B, H, W, C]`, 'index' `[B]`, and the targets that a task reads, such
# as 'label' `[B]` or `[B, num_classes]`; see `Dataset`.
Batch = dict[str, Array]
# The value of pixels of a mask that belong to no class.
IGNORE = 255
# What a network gives a task: an array `[B, ...]`, or several by name.
Output = Array | dict[str, Array]
# Name -> scalar.
Metrics = dict[str, Array]
# Pairs of (student feature, teacher feature): the one way to pair networks.
FeaturePairs = tuple[tuple[str, str], ...]
# Where a backbone is cut into stages: each stage ends at one pair of features,
# or at several that are compared together, such as the levels of a pyramid.
Boundaries = tuple[tuple[str, str] | FeaturePairs, ...]


class StageModule(Protocol):
  """What a stage runs; every Flax Linen module has these two methods."""

  def init(self, rng: Array, *inputs: Array, train: bool) -> Any:
    """Returns initial variables, {collection: tree of arrays}.

    Args:
      rng: the random key.
      *inputs: the features that the stage reads, `[B, ...]`.
      train: whether the stage trains.
    """

  def apply(
    self,
    variables: Mapping[str, Any],
    *inputs: Array,
    train: bool,
    mutable: Any = False,
    rngs: Mapping[str, Array] | None = None,
  ) -> Any:
    """Returns the outputs; (outputs, updates) if `mutable` is a list.

    Args:
      variables: {collection: tree of arrays}.
      *inputs: the features that the stage reads, `[B, ...]`.
      train: whether the stage trains.
      mutable: the names of the collections that the call may change; `updates`
        holds their new values.
      rngs: name -> key, for dropout and the like.
    """


class Affine(NamedTuple):
  """What is done to each channel of images: `image * scale + offset`.

  Attributes:
    scale: one number for each channel.
    offset: one number for each channel.
  """

  scale: tuple[float, ...]
  offset: tuple[float, ...]


class Stage(NamedTuple):
  """One piece of a network.

  Attributes:
    name: unique in its network. Stages whose names agree up to the first dot
      ('group1.block1', 'group1.block2') form the group of that name.
    module: a `StageModule`, usually a Flax Linen module, that is called with
      the inputs and `train`. It is hashable, and modules of equal hyper-
      parameters are equal, since programs are compiled once per network. It
      returns an array, or a dict of arrays. In a dict, the key '' holds the
      output of the stage itself, a key that starts with a dot is appended to
      the stage's name, and any other key is the full name of a feature.
    inputs: the names of the features that the stage reads. If empty, it reads
      the output of the stage before it, and the first stage reads 'image'.
    image: what is done to 'image' before the stage reads it, for a network
      whose images are standardised in another way than the data's; None: it
      reads them as they are.
    optional: the names of features that the stage reads after its inputs if
      they are given, such as the true boxes, which are known only in training;
      see `Task.inputs`.
  """

  name: str
  module: Any
  inputs: tuple[str, ...] = ()
  image: Affine | None = None
  optional: tuple[str, ...] = ()


class Network(NamedTuple):
  """An ordered tuple of stages.

  Attributes:
    stages: the stages.
    outputs: the names of the features that a task receives. If empty, it is the
      output of the last stage. The first name is the main output, which methods
      compare with that of another network. See `networks.output`.
  """

  stages: tuple[Stage, ...]
  outputs: tuple[str, ...] = ()


class Model(NamedTuple):
  """A network and its variables."""

  network: Network
  variables: Variables


# What phases hand on: 'student', 'teacher', ... -> Model or nested dicts.
Carry = dict[str, Any]


class Dataset(NamedTuple):
  """The splits of one data set.

  Attributes:
    splits: 'train', 'validation', 'test', ... -> {'image': uint8
      `[N, H, W, C]`, 'index': int32 `[N]`, and the targets} on the host.
      'index' is the position in the original split. 'image' may be a column
      that is decoded when rows are taken; see `data.sources.images`. A target
      is any column `[N, ...]` that a task reads: 'label', int32 `[N]`, is the
      class of an image. Data without labels have no target.
    num_classes: the number of classes; 0: the data have no classes.
    mean: per channel in [0, 255], over the training images.
    std: the standard deviation, likewise.
    label_names: one per class, or empty.
  """

  splits: dict[str, dict[str, Any]]
  num_classes: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  label_names: tuple[str, ...] = ()
