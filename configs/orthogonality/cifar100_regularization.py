"""Orthogonality's Tables 4 and 5: CIFAR-100, AutoAugment and CutMix.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill \
    --config=configs/orthogonality/cifar100_regularization.py:cutmix-110-64

for a teacher that was trained with CutMix too, and `...:cutmix-110-64-plain`
for one that was not. A row says what the student trains with; the teacher sees
the same images. Made for a GPU; not run yet.

The recipe is that of github.com/clovaai/CutMix-PyTorch, for AutoAugment too.
The paper's random policy is not published: another one is drawn here, its
probabilities and strengths by the seed.

Paper, top-1, teacher / student regularised, label then feature distillation:
AutoAugment 200-300 (scratch 83.46, alone 85.22): no/no 83.96, 84.45; no/yes
86.84, 86.18; yes/no 85.32, 86.49; yes/yes 87.27, 86.61. CutMix 110-64 (80.27,
82.09): 81.92, 81.25; 82.31, 83.19; 82.40, 83.13; 83.72, 83.35. CutMix 200-240
(83.41, 84.87): 84.34, 84.56; 85.43, 86.08; 83.52, 85.53; 86.39, 86.31.
"""

import ml_collections

AUGMENTS = {
  'autoaugment': {'policy': {'name': 'autoaugment', 'seed': 0}},
  'cutmix': {'mix': {'name': 'cutmix', 'alpha': 1.0, 'probability': 0.5}},
}
NETWORKS = ('autoaugment-200-300', 'cutmix-110-64', 'cutmix-200-240')
ARGUMENTS = tuple(n + t for n in NETWORKS for t in ('', '-plain'))


def get_config(name='cutmix-110-64'):
  """Six rows; all nets of one kind."""
  if name not in ARGUMENTS:
    raise ValueError(f'{name!r} is none of {", ".join(ARGUMENTS)}')
  kind, depth, widening = name.removesuffix('-plain').split('-')
  network = {'name': f'pyramidnet{depth}_{widening}'}
  plain = {'name': 'crop_flip'}
  regularized = {'name': 'regularized', **AUGMENTS[kind]}
  taught = plain if name.endswith('-plain') else regularized
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar100', 'validation': 5000}
  config.augment = plain
  config.teacher = {**network, 'training': {'augment': taught}}
  config.student = network
  config.batch_size = 64
  config.epochs = 300
  config.seeds = 3
  config.optimizer = {'name': 'sgd', 'nesterov': True, 'weight_decay': 1e-4}
  config.schedule = {'name': 'step', 'rate': 0.25, 'boundaries': (0.5, 0.75)}
  methods = {
    'alone': {'name': 'supervised'},
    'label': {'name': 'kd', 'weight': 0.9, 'label_weight': 0.1},
    'feature': {'name': 'fd', 'weight': 500.0},
  }
  config.methods = ml_collections.ConfigDict(
    {
      f'{label}, {student}': {**method, 'augment': augment}
      for student, augment in (('plain', plain), (kind, regularized))
      for label, method in methods.items()
    },
    sort_keys=False,
  )
  return config
