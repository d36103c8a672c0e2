"""Orthogonality, Tables 1, 2 and 3: distillation with pruning on CIFAR-100.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/orthogonality/cifar100_pruning.py:filters-resnet56

The argument after the colon is the kind of pruning and the network, one of
`ARGUMENTS`. The results have every column of the paper's table, including the
surplus.

Paper: Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques: From an Ensemble Perspective, 2020.

Setting: the paper's hyper-parameters are in a supplement that is not public. We
take those of github.com/Eric-mingjie/rethinking-network-pruning, which has the
same networks and ratios. Unlike there, gradients flow through the shortcuts
here too. The blocks that this code does not prune are left unpruned at every
ratio. The network of 'slimming-resnet56' is that code's bottleneck network. The
paper does not say which network and which weights 'magnitude-resnet110' prunes:
we took basic blocks, of which only the convolutional kernels are pruned. alpha,
temperature and beta have the defaults of `pruning_protocol`; nobody has tuned
them on this data yet.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config. `cifar10_small.py` in
the same folder is the same experiment on a small scale.

Paper's top-1 accuracy unpruned, then the surplus by label and by feature
distillation: ResNet-56 71.23, 40/70/90 0.71, 0.38 and 50/60/70 1.50, 0.89;
ResNet-110 72.76, 80/80/80 0.63, 0.54 and 50/60/70 1.31, 0.89; slimming VGG-19
72.03, -0.20, 0.05; ResNet-56 73.07, 0.88, 0.53; DenseNet-40 73.14, 0.19, 1.08;
magnitude ResNet-110 72.82, 0.64, 0.59.
"""

from jaxdistill.pruning import filter_pruning

SGD = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
SLIM = {'pools': (True,) * 4, 'use_bias': False, 'scale': 0.5}
# Depth -> fractions of the filters that remain in the three groups.
SHARES = {
  56: {'40-70-90': (0.4, 0.7, 0.9), '50-60-70': (0.5, 0.6, 0.7)},
  110: {'80-80-80': (0.8, 0.8, 0.8), '50-60-70': (0.5, 0.6, 0.7)},
}
# Argument -> the network, the fraction of the channels that remain, the
# strength of the penalty on the scales in training.
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
  """Returns the network, the optimizer before pruning, and the prunings."""
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
  skip = filter_pruning.SENSITIVE[depth]
  prunings = {
    label: {'name': 'filters', 'keep': keep, 'skip': skip}
    for label, keep in SHARES[depth].items()
  }
  return network, SGD, prunings


def get_config(name='filters-resnet56'):
  """Returns 160 epochs for unpruned networks and 40 for each pruned one."""
  if name not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {name!r}')
  network, optimizer, prunings = setting(name)
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar100', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'student': network,
    'batch_size': 64,
    'epochs': 160,
    'seeds': 3,
    'optimizer': optimizer,
    'schedule': {'name': 'step', 'rate': 0.1, 'boundaries': (0.5, 0.75)},
    'method': {
      'name': 'pruning_protocol',
      'prunings': prunings,
      'fine_tune_epochs': 40,
    },
  }
