"""How a call fine-tunes a teacher of other classes on the labels."""

from collections.abc import Mapping
from typing import Any

from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Dataset
from jaxdistill.data.sources import channels
from jaxdistill.networks.weights import backbones, files
from jaxdistill.study import models
from jaxdistill.study.distilling.teacher_sections import Teacher
from jaxdistill.study.plans import Plan

# The head and then all layers together are trained for about this many steps.
STEPS = 500
# The learning rates of AdamW for all layers, with the largest batch. The keys
# are the optimizers that train such networks from new weights. AdamW suits
# features of any scale: those of EfficientNet-Lite are so large that SGD
# diverges at 0.003.
RATES = {'sgd': 1e-4, 'adamw': 3e-5}

METHOD = {'name': 'head_first'}


def section(
  teacher: Teacher,
  optimizer: str,
  scale: float,
  epochs: float,
  own: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the section of a teacher that learns other classes.

  Args:
    teacher: a teacher with a `new_head_section`.
    optimizer: the name of the optimizer that trains such a network from new
      weights.
    scale: the batch size as a share of the largest, by which rates shrink.
    epochs: the epochs of the head and of all layers together.
    own: keys of the training that the user has chosen.
  """
  training = {
    'epochs': epochs,
    'method': METHOD,
    'optimizer': {'name': 'adamw'},
    'schedule': {'name': 'cosine', 'rate': RATES[optimizer] * scale},
    **own,
  }
  return {**(teacher.new_head_section or {}), 'training': training}


def standardisation(
  teacher: Teacher, dataset: Dataset, section: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the mean and std of the images from which a teacher has learned.

  Args:
    teacher: the teacher.
    dataset: the data.
    section: the section `data` of the config. If it sets the mean or the std,
      that value is kept.

  Returns:
    'mean' and 'std'. A value is missing if the section sets it, or if the
    teacher's file lacks it or has it for another number of channels.

  Raises:
    UsageError: one of them is not valid.
  """
  if 'checkpoint' not in teacher.section:
    return {}
  file = teacher.section['checkpoint']
  metadata = files.load_tree(file)[1]
  learned = {}
  for name in ('mean', 'std'):
    values = metadata.get(name)
    if section.get(name) is not None or not isinstance(values, list):
      continue
    if len(values) == len(dataset.mean):
      channels.check(name, values, len(values), place=f'{file}: ')
      learned[name] = tuple(values)
  return learned


def check(plan: Plan) -> None:
  """Checks that only the head of a teacher that is fine-tuned is new.

  Args:
    plan: the plan of a call that fine-tunes its teacher.

  Raises:
    UsageError: other weights do not fit images of this size, such as learned
      positions.
  """
  scheme = plan.initial['teacher']
  assert isinstance(scheme, backbones.Pretrained)
  shapes = models.variable_shapes(plan, 'teacher', plan.networks['teacher'])
  new = [x for x in scheme.new_stages(shapes) if x not in scheme.without]
  if new:
    height, width = plan.image.shape[1:3]
    raise UsageError(
      f'teacher: its weights of {", ".join(new)} do not fit images of {height} '
      f'x {width}; set image_size to the size of the images of its training'
    )


def words(training: Mapping[str, Any]) -> str:
  """Says how the teacher is fine-tuned.

  Args:
    training: the section `teacher.training` of a call's config.
  """
  text = (
    f'to be fine-tuned on these labels for {training["epochs"]:g} epochs with '
    f'{training["optimizer"]["name"]}'
  )
  if training['method'] != METHOD:
    return text
  return f'{text}: its new head first, then all layers with frozen batch norms'
