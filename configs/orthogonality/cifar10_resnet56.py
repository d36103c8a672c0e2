"""Orthogonality, Table 6 and the loss landscapes: ResNet-56 on CIFAR-10.

  python -m jaxdistill.data.prepare cifar10
  jaxdistill --config=configs/orthogonality/cifar10_resnet56.py

Paper: Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques: From an Ensemble Perspective, 2020.

Setting: five networks of each kind. `analysis.diversity` scores them and gives
the intervals. `analysis.landscape` draws the loss around the snapshots that are
kept at the end of each step of the rate ('snapshot1' to 'snapshot3' of
`study.finished`). `notebooks/orthogonality.ipynb` shows both. The paper gives
no recipe for this experiment, so it has that of the pruning tables.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config. `cifar10_small.py` in
the same folder is the same experiment on a small scale.

Paper's diversity of 128 images and its 99 % interval: scratch -143.96 (0.53),
CutMix -143.11 (0.71), label -142.22 (0.65), feature -141.94 (0.41), feature and
CutMix -141.34 (0.24).
"""


def kept(method):
  """Returns `method` with snapshots at the end of each step of the rate."""
  return {'name': 'snapshots', 'method': method, 'at': (0.5, 0.75, 1.0)}


def get_config():
  """Returns five kinds of students, with a teacher of the same network."""
  network = {'name': 'resnet56', 'shortcut': 'pool'}
  cutmix = {'name': 'regularized', 'mix': {'name': 'cutmix'}}
  label = {'name': 'kd', 'weight': 0.9, 'label_weight': 0.1}
  feature = {'name': 'fd', 'weight': 500.0}
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar10', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'teacher': network,
    'student': network,
    'batch_size': 64,
    'epochs': 160,
    'seeds': 5,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4},
    'schedule': {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)},
    'methods': {
      'scratch': kept({'name': 'supervised'}),
      'cutmix': {**kept({'name': 'supervised'}), 'augment': cutmix},
      'label': kept(label),
      'feature': kept(feature),
      'feature and cutmix': {**kept(feature), 'augment': cutmix},
    },
  }
