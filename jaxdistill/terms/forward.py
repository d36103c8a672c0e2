"""What both phases of DistPro compute: the loss of labels, and of pathways."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxdistill.networks import files, staged
from jaxdistill.terms import pairs, pathways
from jaxdistill.types import (
  Array,
  Batch,
  Carry,
  Metrics,
  Network,
  Recipe,
  Variables,
)


class Forward(NamedTuple):
  """A forward pass of a student and its teacher, with pathways between them.

  Attributes:
    pair: the networks.
    paths: between them.
    recipe: how the phase trains.
    student: the role.
    teacher: the role.
  """

  pair: pairs.Pair
  paths: pathways.Pathways
  recipe: Recipe
  student: str
  teacher: str

  @property
  def networks(self) -> dict[str, Network]:
    return {self.student: self.pair.student, self.teacher: self.pair.teacher}

  @property
  def helpers(self) -> tuple[Network, Mapping[str, Any]]:
    return self.paths.helpers, pairs.inputs(self.pair)

  def train(
    self,
    variables: Mapping[str, Variables],
    batch: Batch,
    rng: Array,
    active: Sequence[int] | None = None,
  ) -> tuple[tuple[Array, Array], tuple[dict[str, Variables], Metrics]]:
    """((loss of labels, losses of pathways), (updates, metrics))."""
    image = {'image': batch['image']}
    theirs, _ = staged.run(self.pair.teacher, variables[self.teacher], image)
    ours, updates = staged.run(
      self.pair.student,
      variables[self.student],
      image,
      train=True,
      rngs={'dropout': rng},
    )
    features = {f'student/{k}': v for k, v in ours.items()}
    for k, v in theirs.items():
      features[f'teacher/{k}'] = jax.lax.stop_gradient(v)
    summands, helper_updates = pathways.losses(
      self.paths, variables.get('helpers', {}), features, active=active
    )
    answer = ours[staged.output(self.pair.student)]
    label = self.recipe.task.loss(answer, batch).mean()
    changed = {self.student: updates, 'helpers': helper_updates}
    name = self.recipe.task.score
    found = self.recipe.task.statistics(answer, batch)[name].mean()
    return (label, summands), (changed, {name: found})

  def validate(
    self, variables: Mapping[str, Variables], batch: Batch, rng: Array
  ) -> Array:
    """The loss of labels; batch norm uses the batch, and keeps nothing."""
    features, _ = staged.run(
      self.pair.student,
      variables[self.student],
      {'image': batch['image']},
      train=True,
      rngs={'dropout': rng},
    )
    answer = features[staged.output(self.pair.student)]
    return self.recipe.task.loss(answer, batch).mean()

  def about(self, carry: Carry) -> dict[str, Any]:
    """What a process file says of the networks and the data."""

    def features(side: str, shapes: Any) -> dict[str, list[int]]:
      names = [getattr(path, side) for path in self.paths.paths]
      return {name: list(shapes[name].shape[1:]) for name in names}

    found: dict[str, Any] = {
      'data': {
        'image': list(self.recipe.example['image'].shape[1:]),
        'examples': len(self.recipe.examples['label']),
      }
    }
    for side, role, shapes in (
      ('student', self.student, self.pair.student_shapes),
      ('teacher', self.teacher, self.pair.teacher_shapes),
    ):
      found[side] = {
        'parameters': files.count_parameters(carry[role].variables),
        'features': features(side, shapes),
      }
    return found
