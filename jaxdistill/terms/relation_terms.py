"""Terms that compare how examples or layers relate to each other."""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from jaxdistill import losses
from jaxdistill.terms import helpers, pairs
from jaxdistill.types import Array, Stage


def similarity(
  *, weight: float = 3000.0, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """SP, `losses.similarity_preserving_loss`.

  Args:
    weight: factor.
    cut: one pair; None: the last maps of both.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    student, teacher = pairs.middle_cut(pair, cut)[-1]

    def loss(features, batch, models):
      del batch, models
      return losses.similarity_preserving_loss(
        features[f'student/{student}'], features[f'teacher/{teacher}']
      )

    return pairs.Term(loss, weight)

  return make


def relational(
  *,
  weight: float = 1.0,
  distance_weight: float = 25.0,
  angle_weight: float = 50.0,
  cut: pairs.Pairs = None,
) -> pairs.TermFactory:
  """RKD, `losses.relational_distance_loss` and `relational_angle_loss`.

  Args:
    weight: factor on both.
    distance_weight: of distances between two examples.
    angle_weight: of angles between three.
    cut: one pair; None: the pooled features.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    student, teacher = pairs.last_cut(pair, cut)

    def loss(features, batch, models):
      del batch, models
      ours = features[f'student/{student}']
      theirs = features[f'teacher/{teacher}']
      return distance_weight * losses.relational_distance_loss(
        ours, theirs
      ) + angle_weight * losses.relational_angle_loss(ours, theirs)

    return pairs.Term(loss, weight)

  return make


def probabilistic(
  *, weight: float = 30000.0, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """PKT, `losses.probabilistic_transfer_loss`.

  Args:
    weight: factor.
    cut: one pair; None: the pooled features.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    student, teacher = pairs.last_cut(pair, cut)

    def loss(features, batch, models):
      del batch, models
      return losses.probabilistic_transfer_loss(
        features[f'student/{student}'], features[f'teacher/{teacher}']
      )

    return pairs.Term(loss, weight)

  return make


def congruence(
  *, weight: float = 0.02, size: int = 128, cut: pairs.Pairs = None
) -> pairs.TermFactory:
  """CC, `losses.correlation_congruence_loss` of two trained embeddings.

  Args:
    weight: factor.
    size: of the embeddings.
    cut: one pair; None: the pooled features.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    embeddings = _embeddings(pair, cut, size, 'cc')

    def loss(features, batch, models):
      del batch, models
      return losses.correlation_congruence_loss(
        features['cc_student'], features['cc_teacher']
      )

    return pairs.Term(loss, weight, embeddings)

  return make


def flow(*, weight: float = 1.0, cut: pairs.Pairs = None) -> pairs.TermFactory:
  """FSP, `losses.flow_loss` between consecutive maps.

  Args:
    weight: factor.
    cut: pairs in order, of equal channels; None: the stem and the groups of
      maps.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    chosen = cut
    if cut is None:
      stems = (
        pairs.maps(pair.student, pair.student_shapes)[0],
        pairs.maps(pair.teacher, pair.teacher_shapes)[0],
      )
      chosen = (stems, *pairs.middle_cut(pair, None))
    checked = pairs.check(pair, chosen)
    for s, t in checked:
      ours, theirs = pair.student_shapes[s].shape, pair.teacher_shapes[t].shape
      if ours[-1] != theirs[-1]:
        raise pairs.UsageError(
          f'FSP needs equal channels; {s!r} of the student has {ours[-1]}, '
          f'{t!r} of the teacher {theirs[-1]}'
        )

    def loss(features, batch, models):
      del batch, models
      return losses.flow_loss(
        [features[f'student/{s}'] for s, _ in checked],
        [features[f'teacher/{t}'] for _, t in checked],
      )

    return pairs.Term(loss, weight)

  return make


def contrastive(
  *,
  weight: float = 0.8,
  size: int = 128,
  num_negatives: int = 16384,
  temperature: float = 0.07,
  momentum: float = 0.5,
  cut: pairs.Pairs = None,
) -> pairs.TermFactory:
  """CRD with its memory bank, `losses.memory_contrastive_loss`.

  Args:
    weight: factor.
    size: of the embeddings.
    num_negatives: of each example, at most what other classes have.
    temperature: of the scores.
    momentum: of the memory.
    cut: one pair; None: the pooled features.
  """

  def make(pair: pairs.Pair) -> pairs.Term:
    embeddings = _embeddings(pair, cut, size, 'crd')
    memory = _Memory(
      _Examples(pair.recipe.examples, num_negatives),
      size,
      temperature,
      momentum,
    )
    inputs = ('crd_student', 'crd_teacher', 'batch/label', 'batch/index')

    def loss(features, batch, models):
      del batch, models
      return features['crd']

    return pairs.Term(loss, weight, (*embeddings, Stage('crd', memory, inputs)))

  return make


def _embeddings(
  pair: pairs.Pair, cut: pairs.Pairs, size: int, name: str
) -> tuple[Stage, Stage]:
  """Trained embeddings of a student's and a teacher's feature."""
  student, teacher = pairs.last_cut(pair, cut)
  module = helpers.Embedding(size)
  return (
    Stage(f'{name}_student', module, (f'student/{student}',)),
    Stage(f'{name}_teacher', module, (f'teacher/{teacher}',)),
  )


class _Examples:
  """What the memory must know of the data; compared by identity."""

  def __init__(self, examples: Any, num_negatives: int):
    index, label = examples['index'], examples['label']
    self.size = len(index)
    # Place of an example among those trained on, by its index.
    self.place = np.zeros(index.max() + 1, np.int32)
    self.place[index] = np.arange(self.size)
    self.table = losses.negative_table(label, num_negatives=num_negatives)


class _Memory(nn.Module):
  """The memory bank as state of a helper; its output is the loss `[B]`."""

  examples: _Examples
  size: int
  temperature: float
  momentum: float

  @nn.compact
  def __call__(
    self,
    student: Array,
    teacher: Array,
    label: Array,
    index: Array,
    train: bool,
  ) -> Array:
    bank = self.variable(
      'memory',
      'bank',
      lambda: losses.init_memory_bank(
        self.make_rng('params'), self.examples.size, dim=self.size
      )._asdict(),
    )
    label = label.argmax(-1) if label.ndim == 2 else label
    negatives = losses.sample_negatives(
      self.make_rng('dropout' if train else 'params'),
      self.examples.table,
      label,
    )
    loss, changed = losses.memory_contrastive_loss(
      student,
      teacher,
      losses.MemoryBank(**bank.value),
      jnp.asarray(self.examples.place)[index],
      negatives,
      temperature=self.temperature,
      momentum=self.momentum,
    )
    if train:
      bank.value = changed._asdict()
    return loss
