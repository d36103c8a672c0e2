"""What the names in a config stand for: the one place that asks the library."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxdistill.study import registry
from jaxdistill.study.settings import Settings

# Title -> (the table of the registry, one sentence).
SECTIONS = {
  'Data sets': ('DATASETS', 'The section `data` names the data set.'),
  'Augmentations': (
    'AUGMENTS',
    'The section `augment` says how training images are changed.',
  ),
  'Tasks': (
    'TASKS',
    'The section `task` says what the targets of the data mean.',
  ),
  'Optimizers': (
    'OPTIMIZERS',
    'The section `optimizer` names the update rule.',
  ),
  'Schedules': ('SCHEDULES', 'The section `schedule` names the learning rate.'),
  'Initial weights': (
    'INITIAL_WEIGHTS',
    'The section `initial` gives the student other weights before training.',
  ),
  'Methods': (
    'METHODS',
    'The section `method`, or each row of `methods`, names a method.',
  ),
  'Objectives': (
    'OBJECTIVES',
    'The dict `terms` of the method `joint`, and of the DistPro methods, holds '
    'one section per objective.',
  ),
  'Prunings': (
    'PRUNINGS',
    'The section `pruning` of `pruned`, and each section in `prunings` of '
    '`pruning_protocol`, says what is removed.',
  ),
  'Policies of augmentation': (
    'POLICIES',
    'The section `policy` of the augmentation `regularized`.',
  ),
  'Cutouts': ('CUTOUTS', 'The section `cutout` of `regularized`.'),
  'Mixed images': ('MIXES', 'The section `mix` of `regularized`.'),
  'Pathway spaces': (
    'SPACES',
    'The section `space` of the DistPro methods lists the pathways.',
  ),
  'Masks': ('MASKS', 'The section `masks` of `masked_layer`.'),
  'Layers': ('LAYERS', 'The section `layers` of `masked_layer`.'),
  'Candidates': (
    'CANDIDATES',
    'The dict `candidates` of `student_search` holds one section for each '
    'candidate.',
  ),
  'Networks': (
    'NETWORKS',
    'The sections `student` and `teacher` name a network. `num_classes` '
    'comes from the data set.',
  ),
}


def table(name: str) -> Mapping[str, Callable[..., Any]]:
  """Returns what the names of a section mean: name -> function."""
  return getattr(registry, name)


def settings() -> type:
  """Returns the named tuple whose fields are the keys of a config."""
  return Settings
