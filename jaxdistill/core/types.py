"""The central types: small tuples of data and pure functions.

Data is defined in `core.values` and tasks in `core.tasks`; here are the other
functions that work on data, and recipes and phases, which consist of such
functions. In shapes, `B` is the batch size, `N` the number of examples of a
split, and `H, W, C` are height, width and channels. The student always comes
before the teacher.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import optax

from jaxdistill.core import checks
from jaxdistill.core.metric import Metric
from jaxdistill.core.tasks import (
  TEACHER,
  TEACHER_OUTPUTS,
  Agreement,
  Final,
  Predict,
  Probabilities,
  Probes,
  Progress,
  Summarize,
  Task,
  TaskLoss,
  TaskStatistics,
)
from jaxdistill.core.values import (
  IGNORE,
  Affine,
  Array,
  Batch,
  Boundaries,
  Carry,
  Dataset,
  FeaturePairs,
  Features,
  Metrics,
  Model,
  Network,
  Output,
  PyTree,
  Stage,
  StageModule,
  Static,
  Variables,
)

__all__ = [
  'DIFFERENCES',
  'IGNORE',
  'TEACHER',
  'TEACHER_OUTPUTS',
  'Affine',
  'Agreement',
  'Array',
  'Augment',
  'Batch',
  'Boundaries',
  'Carry',
  'Dataset',
  'EvalModel',
  'FeaturePairs',
  'Features',
  'Final',
  'Method',
  'Metric',
  'Metrics',
  'Model',
  'Network',
  'Optimizer',
  'Output',
  'Phase',
  'PhaseBuilder',
  'PhaseFinish',
  'PhaseInit',
  'PhaseReport',
  'PhaseStep',
  'Predict',
  'Probabilities',
  'Probes',
  'Progress',
  'PyTree',
  'Recipe',
  'Stage',
  'StageModule',
  'Static',
  'StaticChoice',
  'StopRule',
  'Stream',
  'Summarize',
  'Task',
  'TaskLoss',
  'TaskStatistics',
  'Variables',
]


class Augment(Protocol):
  """Changes a batch at random; runs on the device, inside `jax.jit`."""

  def __call__(self, rng: Array, batch: Batch, /) -> Batch:
    """Returns the augmented batch.

    Args:
      rng: the random key of this batch.
      batch: 'image' uint8 or float32 `[B, H, W, C]`, 'index', and the targets.
    """


class Stream(NamedTuple):
  """The batches that a phase draws.

  Attributes:
    batch_size: the number of examples per step, over all devices together.
    augment: (rng, batch of uint8 images) -> batch of float images.
    source: 'data', or the key of a dict of arrays in the carry.
    subset: the split of the data set: 'train', 'train_subset', ...
    part: (start, stop) as fractions of the subset after a fixed shuffle.
      (0, 0.8) and (0.8, 1) have no example in common.
  """

  batch_size: int
  augment: Augment
  source: str = 'data'
  subset: str = 'train'
  part: tuple[float, float] = (0.0, 1.0)


class Optimizer(Protocol):
  """Makes an optimizer whose schedule fits the length of a phase."""

  def __call__(self, num_steps: int, /) -> optax.GradientTransformation:
    """Returns the optimizer.

    Args:
      num_steps: the number of steps that the schedule spans.
    """


class Recipe(NamedTuple):
  """How phases are trained, whatever their loss.

  Attributes:
    epochs: the length of a phase; a method may split it among its phases.
    steps_per_epoch: the number of batches in one pass over `stream`.
    optimizer: num_steps -> an optimizer whose schedule has that length.
    stream: the training batches.
    task: what the targets mean.
    example: the shapes and dtypes of one augmented batch.
    examples: 'index' and the other columns `[N]` or `[N, M]` of all training
      examples, such as 'label', on the host.
    validation: whole batches of the validation split, prepared as images are
      for evaluation.
    validation_steps: how many of these batches make one pass over the split; 0
      if there is no such split.
  """

  epochs: float
  steps_per_epoch: int
  optimizer: Optimizer
  stream: Stream
  task: Task
  example: Mapping[str, jax.ShapeDtypeStruct]
  examples: Mapping[str, Any]
  validation: Stream
  validation_steps: int

  @property
  def num_steps(self) -> int:
    """The length of a phase in steps; at least 1, but 0 for 0 epochs.

    Raises:
      UsageError: `epochs` is negative or not finite.
    """
    checks.number('epochs', self.epochs, at_least=0)
    steps = round(self.epochs * self.steps_per_epoch)
    return max(1, steps) if self.epochs else 0


class PhaseInit(Protocol):
  """Makes what a phase starts with."""

  def __call__(self, rng: Array, carry: Carry, /) -> tuple[PyTree, PyTree]:
    """Returns (state, frozen), two trees of arrays.

    The state changes at every step. What is frozen never changes, such as the
    teacher's weights.

    Args:
      rng: the random key of the phase's initialisation.
      carry: what the phase before handed on.
    """


class PhaseStep(Protocol):
  """One step of training; jitted once per value of `static`."""

  def __call__(
    self,
    state: PyTree,
    frozen: PyTree,
    batches: dict[str, Batch],
    rng: Array,
    static: Static,
    /,
  ) -> tuple[PyTree, Metrics]:
    """Returns (new state, metrics); the metrics have the same names each time.

    A metric called 'loss' must stay finite.

    Args:
      state: the state after the step before.
      frozen: what `init` returned as such.
      batches: stream name -> its augmented batch.
      rng: the random key of this step; see `core.random.step_key`.
      static: what `Phase.static` returned for this step.
    """


class PhaseFinish(Protocol):
  """Hands on what the phase has trained; runs on the host."""

  def __call__(self, state: PyTree, frozen: PyTree, carry: Carry, /) -> Carry:
    """Returns the carry for the next phase.

    Args:
      state: the state after the last step.
      frozen: what `init` returned as such.
      carry: the carry that the phase began with.
    """


class EvalModel(Protocol):
  """Gives the model that is evaluated while a phase runs."""

  def __call__(self, state: PyTree, frozen: PyTree, /) -> Model:
    """Returns the model.

    Args:
      state: the state after some step.
      frozen: what `init` returned as such.
    """


class StaticChoice(Protocol):
  """Chooses the program of a step."""

  def __call__(self, step: int, /) -> Static:
    """Returns a hashable value; each value is compiled once.

    Args:
      step: the number of the step, from 0.
    """


class StopRule(Protocol):
  """Decides on the host whether a phase ends early; see `Phase.stop_every`."""

  def __call__(self, state: PyTree, /) -> bool:
    """Returns whether to stop now.

    Args:
      state: the state after the last step.
    """


class PhaseReport(Protocol):
  """Describes a finished phase in JSON files."""

  def __call__(self, state: PyTree, carry: Carry, /) -> dict[str, Any]:
    """Returns {file name: a value that JSON can hold}.

    Args:
      state: the state after the last step.
      carry: what `finish` returned.
    """


def _never_stop(state: PyTree, /) -> bool:
  del state
  return False


def _one_program(step: int, /) -> Static:
  del step
  return None


def _no_report(state: PyTree, carry: Carry, /) -> dict[str, Any]:
  del state, carry
  return {}


# The report that adds weighted sums of scores to the results; see `Phase`.
DIFFERENCES = 'differences.json'


class Phase(NamedTuple):
  """One stretch of training, as pure functions.

  Attributes:
    name: unique in its method, and a valid file name.
    num_steps: the largest number of steps.
    streams: name -> batches; a phase with no streams draws from its random key
      only.
    init: (rng, carry) -> (state, frozen).
    step: (state, frozen, batches, rng, static) -> (state, metrics).
    finish: (state, frozen, carry) -> the next carry.
    eval_models: name -> (state, frozen) -> a model that is evaluated while the
      phase runs. If the name is a role in the carry, the best model is kept.
    static: step -> a hashable choice of program.
    stop: state -> whether to end now.
    stop_every: the number of steps after which `stop` is asked each time; 0
      means at the end of each epoch.
    report: (state, carry) -> {file name: JSON}. The file `DIFFERENCES` has the
      form {name: {role: factor}} and adds these weighted sums of the roles'
      scores to the results.
  """

  name: str
  num_steps: int
  streams: Mapping[str, Stream]
  init: PhaseInit
  step: PhaseStep
  finish: PhaseFinish
  eval_models: Mapping[str, EvalModel] = {}
  static: StaticChoice = _one_program
  stop: StopRule = _never_stop
  stop_every: int = 0
  report: PhaseReport = _no_report


class PhaseBuilder(Protocol):
  """Builds a phase of a method when the phase before it has ended.

  It may also be called with shapes in place of the arrays of the carry. If the
  phase can be built from these and traced, all seeds of a row share its
  program.
  """

  def __call__(self, carry: Carry, /) -> Phase:
    """Returns the phase.

    Args:
      carry: what the phase before handed on, or the models of the run.
    """


# Phases in the order in which they run; methods are concatenated with +.
Method = tuple[PhaseBuilder, ...]
