"""CIFAR-10 whole: all methods with published weights, ResNet-56 -> ResNet-20.

  jaxdistill --config=configs/losses/cifar10_resnet56_resnet20.py \
    --config.data.path=cifar10.npz

The protocol of RepDistiller (https://github.com/HobbitLong/RepDistiller): 240
epochs, batch 64, 0.05 divided by 10 after 150, 180 and 210, no Nesterov; but
methods of two stages share the 240 epochs. Made for a GPU; not run yet. There
CIFAR-100 is used, with 'path' to its file.
"""

import ml_collections

METHODS = (
  *('kd', 'logits', 'refinery', 'dkd', 'dist', 'fitnets', 'hint', 'at'),
  *('nst', 'fsp', 'sp', 'cc', 'vid', 'rkd', 'pkt', 'ab', 'ft', 'crd', 'ofd'),
  *('reviewkd', 'srrl', 'dml', 'ban'),
)


def get_config():
  """The same for every row; but 'ban' trains three times and 'takd' twice."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'npz', 'path': 'cifar10.npz', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.teacher = {'name': 'resnet56'}
  config.student = {'name': 'resnet20'}
  config.batch_size = 64
  config.epochs = 240
  config.seeds = 3
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4}
  config.schedule = {'name': 'step', 'rate': 0.05}
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      **{name: {'name': name} for name in METHODS},
      # As published for this pair.
      'dkd': {'name': 'dkd', 'beta': 2.0},
      'reviewkd': {'name': 'reviewkd', 'weight': 0.6},
      'kd + crd': {
        'name': 'joint',
        'terms': {'kd': {'weight': 1.0}, 'crd': {}},
      },
      'takd': {'name': 'takd', 'assistants': {'middle': {'name': 'resnet32'}}},
    },
    sort_keys=False,
  )
  return config
