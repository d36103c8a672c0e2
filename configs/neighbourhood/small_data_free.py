"""Neighbourhood Distillation, Table 4 on a small scale: ResNet-8 without data.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/neighbourhood/small_data_free.py:0.75 \
    --config.data.data_dir=DATA

The argument after the colon is k, the width inside the student's blocks as a
fraction of the teacher's. The data serves only to train the teacher and to
measure the students. After the first run, `--config.teacher.checkpoint=` with
its work directory saves training the teacher again.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: a ResNet-8 with half the channels, whose three blocks are narrowed
inside by k. The pieces learn from 3,744 batches of noise, and 312 more are for
fine-tuning; KD on noise has all 4,056. In the row 'gaussian', the paper's,
the input of all blocks is N(0, 1), in 'rectified' its positive part. In 'image'
an image of N(0, 1) passes through the teacher, and in 'moments' the noise has
the means and standard deviations of the teacher's batch norms. ZSKD makes 2,000
images with 200 iterations each and learns from them for 30 epochs.

Hardware and time: one CPU core, 160 to 460 seconds a run.

Test accuracy (teacher 63.66, three seeds) of pieces that were put together
after the paper's noise: 57.81 at k = 1, 47.76 at 0.75 and 28.75 at 0.5. KD on
noise: 18.18, 18.47 and 18.27. ZSKD: 16.63, 14.59 and 14.97.
RESULTS.md has all rows.
`cifar10_data_free.py` in the same folder is the full-size experiment.
"""

ARGUMENTS = ('1.0', '0.75', '0.5')


def get_config(multiplier='0.5'):
  """Returns the rows of one k: four kinds of noise, KD on noise, and ZSKD."""
  network = {
    'name': 'cifar_resnet',
    'depth': 8,
    'stem_width': 8,
    'widths': (8, 16, 32),
    'shortcut': 'A',
  }
  pieces = {
    'name': 'neighbourhood',
    'neighbourhood_epochs': 12,
    'neighbourhood_optimizer': {
      'name': 'adamw',
      'weight_decay': 0.0,
      'schedule': {'name': 'cosine', 'rate': 0.003},
    },
    'fine_tune': {'name': 'gaussian_kd', 'frozen_statistics': True},
    'epochs': 1,
    'schedule': {'rate': 1e-4},
  }
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'cifar10',
      'validation': 5000,
      'train_subset': 20000,
    },
    'subset': 'train_subset',
    'augment': {'name': 'crop_flip'},
    'teacher': {
      **network,
      'training': {'epochs': 10, 'batch_size': 128},
    },
    'student': {
      'name': 'narrowed',
      'network': network,
      'multiplier': float(multiplier),
    },
    'batch_size': 64,
    'epochs': 13,
    'evaluate_every': 10,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      **{
        f'neighbourhoods, {kind}': {**pieces, 'inputs': kind}
        for kind in ('gaussian', 'rectified', 'image', 'moments')
      },
      'gaussian kd': {'name': 'gaussian_kd'},
      'zskd': {
        'name': 'zero_shot',
        'count': 2000,
        'iterations': 200,
        'batch_size': 64,
        'epochs': 30,
        'optimizer': {'name': 'adamw', 'weight_decay': 0.0},
        'schedule': {'rate': 1e-3},
      },
    },
  }
