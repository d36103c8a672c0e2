"""Evaluation of a model on a split of a data set, in one call."""

from jaxdistill.core import checks
from jaxdistill.core.types import Augment, Dataset, Model, Task
from jaxdistill.data.transforms import augment as augment_lib
from jaxdistill.phases import recipes
from jaxdistill.tasks import classification
from jaxdistill.tasks import evaluation as evaluation_lib


def evaluate(
  model: Model,
  dataset: Dataset,
  *,
  split: str = 'test',
  task: Task | None = None,
  augment: Augment | None = None,
) -> dict[str, float]:
  """Returns the metrics of a model in inference mode: {name: value}.

  Args:
    model: the network and its variables.
    dataset: the data; images are standardised by its mean and std.
    split: the name of the split to evaluate on.
    task: what the targets mean; None: classification.
    augment: the augmentation that the model was trained with. If it changes the
      size of images, evaluation uses the central part in that size.

  Raises:
    UsageError: the data set has no such split, or `model` is not a Model.
  """
  if not isinstance(model, Model):
    raise checks.UsageError(
      'evaluate: expected a Model, which is a network with its variables (see '
      f'new_model), got {type(model).__name__}'
    )
  checks.choice('split', split, dataset.splits)
  task = task or classification()
  prepare = recipes.preprocess(dataset, augment or augment_lib.none(), task)
  return evaluation_lib.evaluate(
    model,
    dataset.splits[split],
    task,
    prepare,
  )
