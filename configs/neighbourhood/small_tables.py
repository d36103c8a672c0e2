"""Neighbourhood Distillation, Tables 1 and 6 on a small scale, CIFAR-10.

  python -m jaxdistill.data.prepare cifar10 --data_dir=DATA
  jaxdistill --config=configs/neighbourhood/small_tables.py:0.5 \
    --config.data.data_dir=DATA

The argument after the colon is k, the width inside the student's blocks as a
fraction of the teacher's (0.5 by default). After the first run,
`--config.teacher.checkpoint=` with its work directory saves training the
teacher again.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: a ResNet-20 with half the channels, whose blocks are narrowed inside by
k. Every row has the same 4 epochs. The student alone and KD use all of them for
training the whole network; Neighbourhood Distillation uses 2.5 for its pieces
and 1.5 for fine-tuning. One run of it gives three columns of the paper: the
student put together from its pieces ('distilled'), the same with batch
statistics estimated anew ('reestimated'), and the fine-tuned student. The rate
of the pieces is the best of 0.1, 0.3 and 1 by the training loss of one seed.

Hardware and time: one CPU core, 160 to 590 seconds a run.

Test accuracy at k = 0.5 over three seeds: student alone 55.86, KD 58.65,
fine-tuned pieces 65.62. RESULTS.md has all rows. `cifar10_resnet20.py` in the
same folder is the full-size experiment.
"""

ARGUMENTS = ('1.0', '0.75', '0.5')
EPOCHS, PIECES = 4, 2.5


def get_config(multiplier='0.5'):
  """Returns the rows of one k, with look-ahead if k is below 1."""
  network = {
    'name': 'cifar_resnet',
    'depth': 20,
    'stem_width': 8,
    'widths': (8, 16, 32),
    'shortcut': 'A',
  }
  # Equation (3) of the paper, both for KD and for fine-tuning.
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  pieces = {
    'name': 'neighbourhood',
    'neighbourhood_epochs': PIECES,
    'neighbourhood_optimizer': {
      'name': 'sgd',
      'nesterov': False,
      'weight_decay': 1e-4,
      'schedule': {'name': 'cosine', 'rate': 1.0},
    },
    'statistics_steps': 20,
    'epochs': EPOCHS - PIECES,
    'fine_tune': kd,
  }
  rows = {
    'student alone': {'name': 'supervised'},
    'kd': kd,
    'neighbourhoods': pieces,
  }
  if float(multiplier) < 1:
    rows['neighbourhoods, 2 ahead'] = {**pieces, 'look_ahead': (1.0, 1.0)}
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'cifar10',
      'validation': 5000,
      'train_subset': 20000,
    },
    'subset': 'train_subset',
    'augment': {'name': 'crop_flip'},
    'teacher': {**network, 'training': {'epochs': 10}},
    'student': {
      'name': 'narrowed',
      'network': network,
      'multiplier': float(multiplier),
    },
    'batch_size': 128,
    'epochs': EPOCHS,
    'evaluate_every': 10,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': rows,
  }
