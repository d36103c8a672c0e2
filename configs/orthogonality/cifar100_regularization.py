"""Orthogonality, Tables 4 and 5: AutoAugment and CutMix on CIFAR-100.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill \
    --config=configs/orthogonality/cifar100_regularization.py:cutmix-110-64

The argument after the colon is the regularisation and the PyramidNet. One
command gives the whole grid: a teacher trained with or without the
regularisation, times a student trained with or without it, times distillation
by label or by feature, and both networks alone. In the results,
'cutmix: label.plain.regularized' is the student that was distilled with
regularised images from the teacher that was trained without.

Paper: Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques: From an Ensemble Perspective, 2020.

Setting: the recipe of github.com/clovaai/CutMix-PyTorch, for AutoAugment too.
The paper's random policy is not published. We draw another one, whose
probabilities and strengths depend on the seed.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config. `cifar10_small.py` in
the same folder is the same experiment on a small scale.

Paper's top-1 accuracy by label, then by feature distillation, for each choice
of (teacher / student) regularised or not:
AutoAugment 200-300 (scratch 83.46, alone with AutoAugment 85.22): no/no 83.96,
84.45; no/yes 86.84, 86.18; yes/no 85.32, 86.49; yes/yes 87.27, 86.61.
CutMix 110-64 (80.27, 82.09): 81.92, 81.25; 82.31, 83.19; 82.40, 83.13; 83.72,
83.35.
CutMix 200-240 (83.41, 84.87): 84.34, 84.56; 85.43, 86.08; 83.52, 85.53; 86.39,
86.31.
"""

AUGMENTS = {
  'autoaugment': {'policy': {'name': 'autoaugment', 'seed': 0}},
  'cutmix': {'mix': {'name': 'cutmix', 'alpha': 1.0, 'probability': 0.5}},
}
ARGUMENTS = ('autoaugment-200-300', 'cutmix-110-64', 'cutmix-200-240')


def get_config(name='cutmix-110-64'):
  """Returns the grid, whose networks all have the same architecture."""
  if name not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {name!r}')
  kind, depth, widening = name.split('-')
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar100', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'student': {'name': f'pyramidnet{depth}_{widening}'},
    'batch_size': 64,
    'epochs': 300,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': True, 'weight_decay': 1e-4},
    'schedule': {'name': 'step', 'rate': 0.25, 'boundaries': (0.5, 0.75)},
    'methods': {
      kind: {
        'name': 'regularization_protocol',
        'regularized': {'name': 'regularized', **AUGMENTS[kind]},
      }
    },
  }
