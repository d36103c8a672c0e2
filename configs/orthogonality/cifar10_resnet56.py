"""Orthogonality's Table 6 and its loss landscapes: CIFAR-10, ResNet-56.

  python -m jaxdistill.data.prepare cifar10
  jaxdistill --config=configs/orthogonality/cifar10_resnet56.py

Five networks of each kind. `analysis.diversity` scores them and gives the
intervals; `analysis.landscape` draws the loss around the snapshots that are
kept at the end of each step of the rate ('snapshot1' to 'snapshot3' of
`study.finished`). `notebooks/orthogonality.ipynb` does both. The recipe is that
of the tables of pruning, as the paper gives none. Made for a GPU; not run yet.

Paper, diversity of 128 images: scratch -143.96 (99 % interval 0.53), CutMix
-143.11 (0.71), label -142.22 (0.65), feature -141.94 (0.41), feature and CutMix
-141.34 (0.24).
"""

import ml_collections


def kept(method):
  """With snapshots at the end of each step of the rate."""
  return {'name': 'snapshots', 'method': method, 'at': (0.5, 0.75, 1.0)}


def get_config():
  """The teacher is a network like the students."""
  network = {'name': 'resnet56', 'shortcut': 'pool'}
  cutmix = {'name': 'regularized', 'mix': {'name': 'cutmix'}}
  label = {'name': 'kd', 'weight': 0.9, 'label_weight': 0.1}
  feature = {'name': 'fd', 'weight': 500.0}
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar10', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.teacher = network
  config.student = network
  config.batch_size = 64
  config.epochs = 160
  config.seeds = 5
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  config.schedule = {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)}
  config.methods = ml_collections.ConfigDict(
    {
      'scratch': kept({'name': 'supervised'}),
      'cutmix': {**kept({'name': 'supervised'}), 'augment': cutmix},
      'label': kept(label),
      'feature': kept(feature),
      'feature and cutmix': {**kept(feature), 'augment': cutmix},
    },
    sort_keys=False,
  )
  return config
