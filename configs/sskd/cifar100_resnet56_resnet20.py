"""SSKD, Tables 2, 3 and 5: ResNet-56 teaches ResNet-20 on CIFAR-100.

  python -m jaxdistill.data.prepare cifar100
  jaxdistill --config=configs/sskd/cifar100_resnet56_resnet20.py

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Setting: the paper's schedule gives each stage 60 epochs, with a rate of 0.01
that is divided by 10 at epochs 18, 36 and 54, and the rivals 100 epochs. The
paper does not give the rivals' rates and batch size, nor the schedule of the
head; the values in the code are ours. Nor does it say where the fourth stage
lies in a network of three groups. Our first stage ends at the stem, which
cannot be divided, so that 5 to 8 stages divide the groups. FitNets is the
paper's equation 2, labels and hint together.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config.
`cifar10_resnet20_resnet8.py` in the same folder is the same experiment in
small.

Paper's top-1 accuracy: student 67.96, teacher 71.21; SSKD with 1 to 8 stages
69.24, 70.03, 70.46, 70.77, 70.79, 70.82, 70.85, 70.93; multi-loss with 1 to 4
stages 69.24, 69.29, 69.37, 69.46; KD 69.32, FitNets 69.96, AT 70.03, NST 69.48.
"""


def _block(number):
  """Returns the pair of block 1 to 9 of ResNet-20 and its ResNet-56 block.

  A group of ResNet-56 has three times as many blocks, so each block of
  ResNet-20 meets the last of three.
  """
  group, block = divmod(number - 1, 3)
  group = f'group{group + 1}'
  return f'{group}.block{block + 1}', f'{group}.block{3 * block + 3}'


STEM = ('stem', 'stem')
CUTS = {
  1: (_block(9),),
  2: (_block(6), _block(9)),
  3: (_block(3), _block(6), _block(9)),
  4: (STEM, _block(3), _block(6), _block(9)),
  5: (STEM, *map(_block, (1, 3, 6, 9))),
  6: (STEM, *map(_block, (1, 3, 4, 6, 9))),
  7: (STEM, *map(_block, (1, 3, 4, 6, 7, 9))),
  8: (STEM, *map(_block, (1, 2, 3, 4, 6, 7, 9))),
}


def get_config():
  """Returns SSKD with 1 to 8 stages, multi-loss, and the rivals.

  The paper's weight of 10 for KD is given twice: divided by T^2 = 16, which our
  loss contains, and as it is.
  """
  rows = {'student alone': {'name': 'supervised'}}
  for count, cut in CUTS.items():
    rows[f'sskd, {count} stages'] = {
      'name': 'sskd',
      'cut': cut,
      'stage_epochs': 60,
      'head_epochs': 60,
    }
  for count in (2, 3, 4):
    rows[f'multi-loss, {count}'] = {
      'name': 'multi_loss',
      'cut': CUTS[count],
      'backbone_epochs': 100,
      'head_epochs': 60,
    }
  for label, weight in {'kd': 10 / 16, 'kd with T^2': 10.0}.items():
    rows[label] = {'name': 'kd', 'weight': weight, 'label_weight': 1.0}
  rows['fitnets'] = {'name': 'hint', 'weight': 100.0}
  # These compare the features at the boundaries of four stages.
  four = {'feature_pairs': CUTS[4]}
  rows['at'] = {'name': 'at', 'weight': 50.0, **four}
  rows['nst'] = {'name': 'nst', 'weight': 1000.0, **four}
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar100', 'validation': 0},
    'augment': {'name': 'crop_flip'},
    'teacher': {'name': 'resnet56'},
    'student': {'name': 'resnet20'},
    'batch_size': 128,
    'epochs': 100,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 5e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.1,
      'boundaries': (0.3, 0.6, 0.9),
    },
    'methods': rows,
  }
