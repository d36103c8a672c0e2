"""Orthogonality's Tables 1, 2 and 3: CIFAR-100, distillation with pruning.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/orthogonality/cifar100_pruning.py:filters-resnet56

or another of the arguments; the results name every column of a table, the
surplus too. Made for a GPU; not run yet.

The hyper-parameters stand in a supplement that is not public; what is here are
those of github.com/Eric-mingjie/rethinking-network-pruning, whose networks and
ratios the paper's are; here a gradient flows through the shortcuts too. Its
blocks that are left alone are left alone at every ratio. The network of
'slimming-resnet56' is that code's bottleneck one; the convolutional kernels
alone are pruned in 'magnitude-resnet110', a basic one, which the paper does not
settle. alpha, temperature and beta are those of `pruning_protocol`, chosen by
nobody on this data yet.

Paper, top-1, unpruned and surplus, label then feature distillation: ResNet-56
71.23, 40/70/90 0.71, 0.38 and 50/60/70 1.50, 0.89; ResNet-110 72.76, 80/80/80
0.63, 0.54 and 50/60/70 1.31, 0.89; slimming VGG-19 72.03, -0.20, 0.05;
ResNet-56 73.07, 0.88, 0.53; DenseNet-40 73.14, 0.19, 1.08; magnitude ResNet-110
72.82, 0.64, 0.59.
"""

import ml_collections

from jaxdistill.pruning import filters

SGD = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
SLIM = {'pools': (True,) * 4, 'use_bias': False, 'scale': 0.5}
# Depth -> shares of the filters that stay in the three groups.
SHARES = {
  56: {'40-70-90': (0.4, 0.7, 0.9), '50-60-70': (0.5, 0.6, 0.7)},
  110: {'80-80-80': (0.8, 0.8, 0.8), '50-60-70': (0.5, 0.6, 0.7)},
}
# Network, share of the channels that stay, factor on the scales in training.
SLIMMED = {
  'slimming-vgg19': ({'name': 'vgg19', **SLIM}, 0.5, 1e-4),
  'slimming-resnet56': (
    {'name': 'preactivation_resnet56', 'scale': 0.5},
    0.5,
    1e-5,
  ),
  'slimming-densenet40': ({'name': 'densenet40_12', 'scale': 0.5}, 0.3, 1e-5),
}
ARGUMENTS = (
  *('filters-resnet56', 'filters-resnet110'),
  *SLIMMED,
  'magnitude-resnet110',
)


def setting(name):
  """Network, optimiser of the unpruned networks, prunings."""
  if name in SLIMMED:
    network, keep, strength = SLIMMED[name]
    optimizer = {'name': 'slim', 'strength': strength, 'optimizer': SGD}
    pruning = {'name': 'slimming', 'keep': keep}
    return network, optimizer, {f'{round(100 * keep)}': pruning}
  kind, _, resnet = name.partition('-')
  network = {'name': resnet, 'shortcut': 'pool'}
  if kind == 'magnitude':
    return network, SGD, {'40': {'name': 'magnitude', 'keep': 0.4}}
  depth = int(resnet.removeprefix('resnet'))
  skip = filters.SENSITIVE[depth]
  prunings = {
    label: {'name': 'filters', 'keep': keep, 'skip': skip}
    for label, keep in SHARES[depth].items()
  }
  return network, SGD, prunings


def get_config(name='filters-resnet56'):
  """160 epochs for unpruned networks, 40 for each pruned one."""
  if name not in ARGUMENTS:
    raise ValueError(f'{name!r} is none of {", ".join(ARGUMENTS)}')
  network, optimizer, prunings = setting(name)
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'cifar100', 'validation': 5000}
  config.augment = {'name': 'crop_flip'}
  config.student = network
  config.batch_size = 64
  config.epochs = 160
  config.seeds = 3
  config.optimizer = optimizer
  config.schedule = {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)}
  config.method = {
    'name': 'pruning_protocol',
    'prunings': prunings,
    'fine_tune_epochs': 40,
  }
  return config
