"""What a run is told, what it returns, and how it can end early."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jaxdistill.core.metric import TOP1
from jaxdistill.core.types import Carry, Method, Metric, Model
from jaxdistill.training.log import Log


class Interrupted(Exception):
  """The run was asked to stop; its state is on disk."""


class NonFiniteLossError(RuntimeError):
  """The loss or the state became NaN or infinite."""


class FitOptions(NamedTuple):
  """How a run is watched, stored and spread over devices.

  The options do not change what is trained, except for rounding: several
  devices add numbers in another order, and so do other values of
  `steps_per_call` or `log_every` if a call takes several steps.
  `evaluate_every` and `score` choose the best epoch.

  Attributes:
    directory: where the run is stored and from where it resumes; None: it is
      not stored.
    evaluate: model -> {metric: value} on the validation split; None: models
      are not evaluated during training.
    score: the metric that chooses the best epoch.
    evaluate_every: the number of epochs between two evaluations.
    log_every: the number of steps per record.
    checkpoint_seconds: the shortest time between two checkpoints.
    log: where metrics go. If there are several processes, only the log of the
      first one should write.
    interrupted: returns whether to stop; asked before each step. If there are
      several processes it is asked every `log_every` steps, and all of them
      stop as soon as one is asked to.
    workers: the number of processes that load streamed data; None: as many as
      suit the machine, see `data.loading.streaming`.
    model_parallel: how many devices share each large array of the state. The
      batches are spread over groups of that many devices.
    steps_per_call: how many steps the devices take in one call, if all data is
      in memory. With one step per call, small networks wait for the host on
      accelerators. None: 1 on CPUs, where this does not matter, and 10
      elsewhere. A call never extends beyond an epoch or a record, and starts at
      a multiple of this number.
    devices: the devices of the run; None: all of them.
  """

  directory: str | None = None
  evaluate: Callable[[Model], dict[str, float]] | None = None
  score: Metric = TOP1
  evaluate_every: int = 1
  log_every: int = 50
  checkpoint_seconds: float = 60.0
  log: Log = Log(show=False)
  interrupted: Callable[[], bool] = lambda: False
  workers: int | None = None
  model_parallel: int = 1
  steps_per_call: int | None = None
  devices: Sequence[jax.Device] | None = None


class Run(NamedTuple):
  """One of several runs that train together.

  Attributes:
    method: functions that build the phases, in order.
    carry: what the first phase receives.
    seed: determines the order of examples and all random numbers.
    options: the options with the directory of its phases and its log.
  """

  method: Method
  carry: Carry
  seed: int
  options: FitOptions


class PhaseCost(NamedTuple):
  """What a phase cost, over all starts of the run.

  Attributes:
    phase: the name of the phase.
    steps: the number of steps.
    seconds: the time from its beginning to its end, with evaluation,
      checkpoints and loading of data.
    compile_seconds: how much of it went into the first call of each program of
      a step, which compiles it.
    device_seconds: the rest, times the number of devices that took part.
  """

  phase: str
  steps: int
  seconds: float
  compile_seconds: float
  device_seconds: float


class Fitted(NamedTuple):
  """The result of a run.

  Attributes:
    carry: what the last phase handed on.
    best: role -> the model of the best epoch, in the last phase that evaluated
      this role.
    best_step: role -> the step at the end of that epoch, within its phase.
    steps: the number of steps of all phases.
    seconds: the time that was spent, including earlier processes that worked on
      the same run.
    reports: file name -> JSON value, from all phases.
    costs: what each phase with steps cost, in order.
  """

  carry: Carry
  best: dict[str, Model]
  best_step: dict[str, int]
  steps: int
  seconds: float
  reports: dict[str, Any]
  costs: tuple[PhaseCost, ...] = ()
