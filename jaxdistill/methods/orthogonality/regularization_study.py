"""Distillation combined with regularisation by augmented images.

A teacher and a student can each be trained with plain or with regularised
images, for example by CutMix. In distillation both networks see the student's
images, and the soft targets and features are those of the mixed image.
"""

from collections.abc import Sequence

from jaxdistill.core.types import Augment, Method, Recipe
from jaxdistill.methods.orthogonality.distillation import (
  KINDS,
  Distillation,
  copied,
  new,
)
from jaxdistill.phases import joint, recipes

PLAIN, REGULARIZED = 'plain', 'regularized'


def regularization_protocol(
  recipe: Recipe,
  *,
  regularized: Augment,
  kinds: Sequence[str] = KINDS,
  alpha: float = 0.9,
  temperature: float = 4.0,
  beta: float = 500.0,
  student: str = 'student',
) -> Method:
  """Trains every network that the paper's tables of regularisation compare.

  The networks 'plain' and 'regularized' learn the labels of plain images, which
  are those of the recipe, and of regularised ones. They are the paper's rows
  without distillation, and they are the teachers. Each pair of a teacher T and
  kinds of images S for the student, both 'plain' or 'regularized', then gives
  new networks of the same kind:

    label.T.S      learns the labels and the class probabilities of T
    feature.T.S    learns the labels and the last feature map of T

  These names are roles of the carry and appear in the results. The paper calls
  plain 'No' and regularised 'Yes'. The student that is handed on is the last
  network that was trained.

  It needs no teacher. It takes 2 + 4 K phases of the recipe's length, with K
  kinds.

  Args:
    recipe: how all networks are trained. Its augmentation makes plain images.
    regularized: the augmentation that makes regularised images, in place of the
      recipe's. The images must have the same size.
    kinds: kinds of distillation: 'label', `losses.soft_target_loss`, and
      'feature', `losses.normalized_l1_loss`.
    alpha: the weight of the soft targets, in [0, 1]; that of the labels is
      1 - alpha.
    temperature: the temperature of the soft targets.
    beta: the weight of the feature loss, see `objectives.fd`.
    student: the role of the model whose network is used.

  Raises:
    UsageError: a kind does not exist, or a number is out of its range.
  """
  distillation = Distillation(alpha, temperature, beta)
  distillation.check(kinds)
  by_images = {
    PLAIN: recipe,
    REGULARIZED: recipes.with_augment(recipe, regularized),
  }
  method: Method = (copied({PLAIN: student}, 'new_plain'),)
  method += joint.supervised(recipe, student=PLAIN, name=PLAIN)
  method += (new(recipe, REGULARIZED, PLAIN),)
  method += joint.supervised(
    by_images[REGULARIZED], student=REGULARIZED, name=REGULARIZED
  )
  last = REGULARIZED
  for kind in kinds:
    for teacher in by_images:
      for images, image_recipe in by_images.items():
        last = f'{kind}.{teacher}.{images}'
        method += (new(recipe, last, PLAIN),)
        method += distillation.method(image_recipe, kind, last, teacher)
  return (*method, copied({student: last}, 'student'))
