"""Notes about a plan's data that the user should read before training."""

from jaxdistill.data.loading import streaming
from jaxdistill.data.sources import channels, labels
from jaxdistill.study.plans import Plan


def notes(plan: Plan) -> list[str]:
  """Returns one line for each thing that the user may not expect."""
  of_data = (
    *(statistics_note(plan), size_note(plan)),
    *(classes_note(plan, split) for split in ('validation', 'test')),
  )
  of_task = plan.task.notes(plan.dataset)
  return [*filter(None, of_data), *of_task, *plan.notes]


def statistics_note(plan: Plan) -> str:
  """Says that mean and std are those of a sample of the images; or ''."""
  train = plan.dataset.splits['train']
  data = plan.rows[0].resolved['data']
  estimated = [name for name in ('mean', 'std') if data.get(name) is None]
  if not streaming.is_lazy(train) or len(train['image']) <= channels.SAMPLE:
    return ''
  if not estimated:
    return ''
  return (
    f'data: {" and ".join(estimated)} are estimated from {channels.SAMPLE:,} '
    f'of {len(train["image"]):,} images; data.mean and data.std set other '
    'values'
  )


def size_note(plan: Plan) -> str:
  """Says that networks see more pixels than the images have; or ''."""
  original = plan.dataset.splits['train']['image'].shape[1:3]
  resized = plan.image.shape[1:3]
  if all(new <= old for new, old in zip(resized, original)):
    return ''
  return (
    f'augment: the images of {original[0]} x {original[1]} pixels are enlarged '
    f'to {resized[0]} x {resized[1]}'
  )


def classes_note(plan: Plan, split: str) -> str:
  """Says which classes are not in a split; or ''."""
  names = plan.dataset.label_names
  label = plan.dataset.splits.get(split, {}).get('label')
  if label is None or label.ndim != 1:  # not the class of each image
    return ''
  if len(label) and label.min() >= plan.dataset.num_classes:
    return ''  # verification: other identities than those of training
  missing = labels.missing(label, plan.dataset.num_classes, names)
  if not missing:
    return ''
  remedy = '; data.validation sets its size' if split == 'validation' else ''
  return f'data: the {split} split has no examples of {missing}{remedy}'
