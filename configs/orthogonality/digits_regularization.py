"""Orthogonality, Tables 4 and 5 on a small scale: the whole grid on digits.

  jaxdistill --config=configs/orthogonality/digits_regularization.py

Paper: Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques: From an Ensemble Perspective, 2020.

Setting: each row trains ten networks. Two of them learn the labels, one with
and one without the regularisation, and are the teachers of the other eight,
which are distilled with or without the regularisation, by label or by feature.
All of them see the same 100 images 40 times. alpha, T and beta were not tuned.
'cutmix: label.plain.regularized' is the student that was distilled with CutMix
from the teacher that was trained without.

Hardware and time: one CPU core; 4 minutes for a row with
`--config.epochs=400 --config.evaluate_every=100`. Nothing is downloaded.

Test accuracy over five seeds after 400 epochs: plain 88.5, CutMix 90.2,
distilled by label with CutMix for teacher and student 91.6. RESULTS.md has the
whole grid.
"""

AUGMENTS = {
  'cutmix': {'mix': {'name': 'cutmix', 'alpha': 1.0, 'probability': 0.5}},
  'autoaugment': {'policy': {'name': 'autoaugment', 'seed': 0}},
}


def get_config():
  """Returns the grids of CutMix and of AutoAugment."""
  return {
    'data': {'name': 'digits', 'train_subset': 100},
    'subset': 'train_subset',
    'student': {'name': 'resnet8', 'widths': (8, 16, 32), 'stem_width': 8},
    'batch_size': 50,
    'epochs': 40,
    'evaluate_every': 20,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4},
    'schedule': {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)},
    'methods': {
      label: {
        'name': 'regularization_protocol',
        'regularized': {
          'name': 'regularized',
          'augment': {'name': 'none'},
          **parts,
        },
        'alpha': 0.5,
        'beta': 30.0,
      }
      for label, parts in AUGMENTS.items()
    },
  }
