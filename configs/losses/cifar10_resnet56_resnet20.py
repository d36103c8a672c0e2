"""All methods with their published weights on the whole of CIFAR-10.

  jaxdistill --config=configs/losses/cifar10_resnet56_resnet20.py \
    --config.data.path=cifar10.npz

Setting: ResNet-56 teaches ResNet-20 by the protocol of RepDistiller
(https://github.com/HobbitLong/RepDistiller): 240 epochs, batch size 64, and a
rate of 0.05 that is divided by 10 after epochs 150, 180 and 210, without
Nesterov momentum. Unlike there, the two stages of a two-stage method share the
240 epochs. RepDistiller uses CIFAR-100; to do the same, let `path` name a file
with that data set.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config.
"""

METHODS = (
  *('kd', 'logits', 'refinery', 'dkd', 'dist', 'fitnets', 'hint', 'at'),
  *('nst', 'fsp', 'sp', 'cc', 'vid', 'rkd', 'pkt', 'ab', 'ft', 'crd', 'ofd'),
  *('reviewkd', 'srrl', 'dml', 'ban'),
)


def get_config():
  """Returns rows of one setting, but `ban` trains 3 times and `takd` twice."""
  return {
    'data': {'name': 'npz', 'path': 'cifar10.npz', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': 'resnet56'},
    'student': {'name': 'resnet20'},
    'batch_size': 64,
    'epochs': 240,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4},
    'schedule': {'name': 'step', 'rate': 0.05},
    'methods': {
      'student alone': {'name': 'supervised'},
      **{name: {'name': name} for name in METHODS},
      # Two weights that were published for this pair of networks.
      'dkd': {'name': 'dkd', 'beta': 2.0},
      'reviewkd': {'name': 'reviewkd', 'weight': 0.6},
      'kd + crd': {
        'name': 'joint',
        'terms': {'kd': {'weight': 1.0}, 'crd': {}},
      },
      'takd': {'name': 'takd', 'assistants': {'middle': {'name': 'resnet32'}}},
    },
  }
