"""How a call fine-tunes a teacher of other classes on the labels."""

from collections.abc import Mapping
from typing import Any

from jaxdistill.study.distilling.teacher_sections import Teacher

# The head and then all layers together are trained for about this many steps.
STEPS = 500
# The learning rates of AdamW for all layers, with the largest batch. The keys
# are the optimizers that train such networks from new weights. AdamW suits
# features of any scale: those of EfficientNet-Lite are so large that SGD
# diverges at 0.003.
RATES = {'sgd': 1e-4, 'adamw': 3e-5}


def section(
  teacher: Teacher, optimizer: str, scale: float, epochs: float
) -> dict[str, Any]:
  """Returns the section of a teacher that learns other classes.

  Args:
    teacher: a teacher with a `new_head_section`.
    optimizer: the name of the optimizer that trains such a network from new
      weights.
    scale: the batch size as a share of the largest, by which rates shrink.
    epochs: the epochs of the head and of all layers together.
  """
  training = {
    'epochs': epochs,
    'method': {'name': 'head_first'},
    'optimizer': {'name': 'adamw'},
    'schedule': {'name': 'cosine', 'rate': RATES[optimizer] * scale},
  }
  return {**(teacher.new_head_section or {}), 'training': training}


def words(training: Mapping[str, Any]) -> str:
  """Says how the teacher is fine-tuned.

  Args:
    training: the section `teacher.training` of a call's config.
  """
  return (
    f'to be fine-tuned on these labels for {training["epochs"]:g} epochs: its '
    'new head first, then all layers with frozen batch norms, with '
    f'{training["optimizer"]["name"]} at {training["schedule"]["rate"]:g}'
  )
