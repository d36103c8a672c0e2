"""A phase without steps, which only puts models into the carry."""

from collections.abc import Mapping
from typing import Protocol

from jaxdistill.core import marks
from jaxdistill.core.types import (
  Array,
  Batch,
  Carry,
  Metrics,
  Model,
  Network,
  Phase,
  PhaseBuilder,
  PyTree,
  Static,
  Variables,
)


class MakeModels(Protocol):
  """The function of a setup phase."""

  def __call__(self, rng: Array, carry: Carry, /) -> Mapping[str, Model]:
    """Makes the models that are put into the carry.

    Args:
      rng: a random key, for new weights. Networks must not depend on it.
      carry: what the phases so far have handed on.

    Returns:
      Role -> model.
    """


def setup_phase(name: str, models: MakeModels) -> Phase:
  """Builds a phase without steps, which puts models into the carry.

  Args:
    name: the name of the phase, a valid file name.
    models: makes the models; see `MakeModels`.
  """
  networks: dict[str, Network] = {}

  def init(rng: Array, carry: Carry) -> tuple[dict[str, Variables], PyTree]:
    new_models = models(rng, carry)
    networks.update({role: model.network for role, model in new_models.items()})
    return {role: model.variables for role, model in new_models.items()}, ()

  def step(
    state: dict[str, Variables],
    frozen: PyTree,
    batches: dict[str, Batch],
    rng: Array,
    static: Static,
  ) -> tuple[dict[str, Variables], Metrics]:
    del frozen, batches, rng, static
    return state, {}

  def finish(
    state: dict[str, Variables], frozen: PyTree, carry: Carry
  ) -> Carry:
    del frozen
    new_models = {
      role: Model(networks[role], variables)
      for role, variables in state.items()
    }
    return {**carry, **new_models}

  return Phase(name, 0, {}, init, step, finish)


def keep(name: str, student: str) -> PhaseBuilder:
  """Builds a phase that stores the student, unchanged, in another role.

  Args:
    name: the role that the model gets too.
    student: the role of the model.
  """

  def models(rng: Array, carry: Carry) -> dict[str, Model]:
    del rng
    return {name: carry[student]}

  return marks.any_classes(lambda carry: setup_phase(f'keep_{name}', models))
