"""Tables 1 and 6 of Neighbourhood Distillation in small: CIFAR-10, 20,000 images.

  jaxdistill --config=configs/neighbourhood/cifar10_resnet20.py \
    --config.data.path=cifar10.npz

ResNet-20 with blocks narrowed inside by k; every row has the same 4 epochs: the
student alone and KD use them whole, Neighbourhood Distillation 2.5 for its
pieces and 1.5 for fine-tuning. One run of it gives three columns of the paper:
the student put together ('distilled'), with its batch statistics estimated anew
('reestimated'), and fine-tuned. Rates were chosen on the validation split of
one seed. The full size is beside it, `cifar10_resnet20_full.py`.
"""

import ml_collections

MULTIPLIERS = (1.0, 0.75, 0.5)
EPOCHS, PIECES = 4, 2.5


def get_config():
  """Four rows for each multiplier."""
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'npz',
    'path': 'cifar10.npz',
    'validation': 5000,
    'few': 20000,
  }
  config.subset = 'few'
  config.augment = {'name': 'crop_flip', 'mirror': False}
  config.teacher = {
    'name': 'resnet20',
    'shortcut': 'A',
    'training': {'epochs': 12},
  }
  config.student = {'name': 'resnet20', 'shortcut': 'A'}
  config.batch_size = 128
  config.epochs = EPOCHS
  config.evaluate_every = 10
  config.seeds = 3
  config.optimizer = {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4}
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  return config
