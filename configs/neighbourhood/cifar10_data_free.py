"""Neighbourhood Distillation, Table 4: ResNet-20 without data.

  python -m jaxdistill.data.prepare cifar10
  jaxdistill --config=configs/neighbourhood/cifar10_data_free.py:0.75

The argument after the colon is k, the width inside the student's blocks as a
fraction of the teacher's. The data serves only to train the teacher and to
measure the students.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020. ZSKD is Nayak et al., Zero-Shot Knowledge
Distillation in Deep Networks, 2019.

Setting: Neighbourhood Distillation and fine-tuning have the lengths of Table 1.
Where the paper gives no value, the code has ours. ZSKD makes 40,000 images with
1,500 iterations each and then trains by Adam for 500 epochs, as its authors do.

Held out: nothing of the 50,000 training images.

Hardware: intended for a GPU. We have not run this config. `small_data_free.py`
in the same folder is the same experiment on a small scale.

Paper's accuracy, k: CE, G-ND, G-ND + FT, GN-KD, ZSKD:

  1     91.60 91.51 91.51 16.00 21.50
  0.9   91.31 88.78 88.78 12.97 22.77
  0.75  90.89 80.64 83.74 13.00 21.54
  0.5   90.17 53.40 54.83 12.74 22.17
"""

ARGUMENTS = ('1.0', '0.9', '0.75', '0.5')
EPOCH = 50000 // 128  # steps


def get_config(multiplier='0.75'):
  """Returns the rows of one k, with four kinds of noise."""
  network = {'name': 'resnet20', 'shortcut': 'A'}
  rows = {'student alone': {'name': 'supervised'}}
  for inputs in ('gaussian', 'rectified', 'image', 'moments'):
    rows[f'neighbourhoods, {inputs}'] = {
      'name': 'neighbourhood',
      'inputs': inputs,
      'neighbourhood_epochs': 200000 / EPOCH,
      'fine_tune': {'name': 'gaussian_kd', 'frozen_statistics': True},
      'epochs': 50000 / EPOCH,
      'schedule': {'name': 'constant', 'rate': 1e-2},
    }
  rows['gaussian kd'] = {'name': 'gaussian_kd'}
  rows['zskd'] = {
    'name': 'zero_shot',
    'batch_size': 64,
    'epochs': 500,
    'optimizer': {'name': 'adamw', 'weight_decay': 0.0},
    'schedule': {'name': 'constant', 'rate': 1e-3},
  }
  return {
    'data': {'name': 'tfds', 'dataset': 'cifar10', 'validation': 0},
    'augment': {'name': 'crop_flip', 'mirror': False},
    'teacher': network,
    'student': {
      'name': 'narrowed',
      'network': network,
      'multiplier': float(multiplier),
    },
    'batch_size': 128,
    'epochs': 96000 / EPOCH,
    'evaluate_every': 10,
    'seeds': 3,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.1,
      'boundaries': (1 / 3, 2 / 3),
      'warmup': 400 / 96000,
    },
    'methods': rows,
  }
