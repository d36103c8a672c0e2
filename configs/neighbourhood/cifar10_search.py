"""Neighbourhood Distillation, Figures 3a and 6: student search with ResNet-20.

  python -m jaxdistill.data.prepare cifar10
  jaxdistill --config=configs/neighbourhood/cifar10_search.py
  jaxdistill --config=configs/neighbourhood/cifar10_search.py:0.5

The first command searches. The second one trains the search's other rival, a
network with the given fraction of all widths in all layers.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: ten candidates for each block, and one student for each drop of the
partial model's accuracy. The drop is measured on the validation split; the
paper does not say on which split. The results of a search include the students
with the same k in all blocks, before fine-tuning; `cifar10_resnet20.py` has
them with fine-tuning.

Held out: 5,000 of the 50,000 training images, on which drops are measured.

Hardware: intended for a GPU. We have not run this config. `small_search.py` in
the same folder is the same experiment on a small scale.
"""

EPOCH = 45000 // 128  # steps
ARGUMENTS = ('search', '0.25', '0.5', '0.75')
DROPS = (0.001, 0.0025, 0.005, 0.01, 0.02)


def get_config(width='search'):
  """Returns the search, or KD to a student with a fraction of all widths."""
  teacher = {'name': 'resnet20', 'shortcut': 'A'}
  student = teacher
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  methods = {
    'kd': kd,
    'search': {
      'name': 'student_search',
      'drops': DROPS,
      'neighbourhood_epochs': 200000 / EPOCH,
      'fine_tune': kd,
      'epochs': 50000 / EPOCH,
      'schedule': {'name': 'constant', 'rate': 1e-2},
    },
  }
  rows = {'methods': methods}
  if width != 'search':
    fraction = float(width)
    student = {
      **teacher,
      'stem_width': int(16 * fraction),
      'widths': tuple(int(fraction * w) for w in (16, 32, 64)),
    }
    rows = {'method': kd}
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar10', 'validation': 5000},
    'augment': {'name': 'crop_flip', 'mirror': False},
    'teacher': teacher,
    'student': student,
    'batch_size': 128,
    'epochs': 96000 / EPOCH,
    'evaluate_every': 10,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.1,
      'boundaries': (1 / 3, 2 / 3),
      'warmup': 400 / 96000,
    },
    **rows,
  }
