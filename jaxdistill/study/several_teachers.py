"""Teachers whose vectors are standardised and, if there are several, joined.

The vectors of each teacher are standardised: their mean over training images is
subtracted, and they are divided by the root of their mean squared length. Each
teacher thus has the same share of the squared length of the joined vector,
whatever the size and the scale of its own vectors, and the losses of the
objective `embedding` give all teachers the same weight. The geometry of each
teacher's vectors is kept, because one number scales all of their entries. The
scales are computed once, before the training. If losses were divided by their
own running values instead, the objective would change while it is minimised.

The vectors of a single teacher are standardised for another reason. If all of
them have a large part in common, any two of them have a high cosine. Without
this part, the loss depends on what distinguishes the images.

  Ranzinger et al., PHI-S: Distribution Balancing for Label-Free Multi-Teacher
  Distillation, 2024, https://arxiv.org/abs/2410.01680
  Shang et al., Theia: Distilling Diverse Vision Foundation Models for Robot
  Learning, 2024, https://arxiv.org/abs/2407.20179
  Sariyildiz et al., UNIC: Universal Classification Models via Multi-teacher
  Distillation, 2024, https://arxiv.org/abs/2408.05088
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import (
  Augment,
  Batch,
  Dataset,
  Model,
  Network,
  Task,
  Variables,
)
from jaxdistill.networks import graph
from jaxdistill.networks.surgery import joining
from jaxdistill.networks.surgery.joining import Scale
from jaxdistill.phases import recipes
from jaxdistill.study import teachers
from jaxdistill.study.drafts import TeacherDraft
from jaxdistill.study.teachers import FileTeacher
from jaxdistill.tasks import embedding, evaluation

# A teacher's scale is computed from at most so many training images.
_MOST_IMAGES = 512
# `over` compiles a program for each task. It is given this one each time, which
# `_vectors` does not read.
_TASK = embedding()
FOREIGN = 'it gives standardised vectors, which are not scores'


def read(
  drafts: Mapping[str, TeacherDraft],
  dataset: Dataset,
  preprocess: Augment,
) -> FileTeacher:
  """Reads several teachers and joins their vectors.

  Args:
    drafts: name -> the section of a teacher with a file.
    dataset: the data.
    preprocess: how images are prepared for evaluation.

  Raises:
    UsageError: a file cannot be read, or a teacher gives no vectors.
  """
  found = {
    name: teachers.read(draft, dataset, preprocess)
    for name, draft in drafts.items()
  }
  scales = {
    name: _scale(name, teacher.model, dataset, preprocess)
    for name, teacher in found.items()
  }
  models = {name: teacher.model for name, teacher in found.items()}
  notes = [f'{name}: {note}' for name, t in found.items() for note in t.notes]
  return FileTeacher(joining.joined(models, scales), tuple(notes))


def _scale(
  name: str, model: Model, dataset: Dataset, preprocess: Augment
) -> Scale:
  """Returns how the vectors of a teacher are standardised."""
  image = recipes.example(dataset, preprocess, 1)['image']
  shapes = graph.shapes(model.network, {'image': image})
  shape = shapes[graph.main_output(model.network)].shape
  if len(shape) != 2:
    raise UsageError(
      f'teacher: expected vectors [B, D] as outputs of {name}, one for each '
      f'image, got the shape {list(shape)} for one image'
    )
  images = dataset.splits['train']['image']
  rows = np.linspace(0, len(images) - 1, min(_MOST_IMAGES, len(images)))
  split = {'image': images[rows.astype(int)]}
  vectors = evaluation.over(_vectors, model, split, _TASK, preprocess)
  vectors = np.asarray(vectors, np.float64)
  mean = vectors.mean(0)
  length = float(np.sqrt(((vectors - mean) ** 2).sum(-1).mean()))
  if not np.isfinite(length) or length <= 0:
    raise UsageError(
      f'teacher: expected vectors of {name} that differ between images, got '
      f'vectors with a root mean squared distance of {length} from their mean'
    )
  return Scale(jnp.asarray(mean, jnp.float32), jnp.float32(length))


def _vectors(
  network: Network,
  task: Task,
  preprocess: Augment,
  variables: Variables,
  batch: Batch,
) -> Any:
  del task
  batch = preprocess(jax.random.key(0), batch)
  features, _ = graph.run(network, variables, {'image': batch['image']})
  return features[graph.main_output(network)].astype(jnp.float32)
