"""Neighbourhood Distillation, Figures 3 and 6 on a small scale: on digits.

  jaxdistill --config=configs/neighbourhood/digits_search.py:search
  jaxdistill --config=configs/neighbourhood/digits_search.py:bottleneck,0.5
  jaxdistill --config=configs/neighbourhood/digits_search.py:width,0.5

The first command searches a width for each block and fine-tunes the students
that it finds. The others train its rivals, which have one multiplier for all
blocks: for their inner widths, or for all widths of the network, where only KD
is possible. After the first run, `--config.teacher.checkpoint=WORKDIR` gives
its teacher to the rivals.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: a ResNet-14 that has seen 1,000 images; the students see 200 of them.
Each student has 240 steps: 120 for its pieces and 120 for fine-tuning by KD, or
240 for KD. The accuracies of Figure 6, with one block replaced, are in the file
student_search.json of the search. The rates were not tuned.

Hardware and time: one CPU core; three minutes for the search, and less than a
minute for each of the others. Nothing is downloaded.

Test accuracy over three seeds: RESULTS.md. Fine-tuned, the searched students
are as good as those with one multiplier inside all blocks (93.1 to 94.0 with
6,800 to 8,600 parameters), and better than KD with fewer channels everywhere
(89.6 with 6,451).
"""

ARGUMENTS = ('search', 'bottleneck,0.5', 'width,0.5')
NETWORK = {'name': 'resnet14', 'stem_width': 8, 'widths': (8, 16, 32)}
KD = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
PIECES = {
  'neighbourhood_epochs': 30,
  'neighbourhood_optimizer': {
    'name': 'sgd',
    'nesterov': False,
    'weight_decay': 1e-4,
    'schedule': {'name': 'cosine', 'rate': 0.3},
  },
  'statistics_steps': 20,
  'fine_tune': KD,
  'epochs': 30,
}


def get_config(students='search'):
  """Returns the search, or the students of one multiplier."""
  kind, _, multiplier = students.partition(',')
  student, rows = NETWORK, {'kd': KD}
  if kind == 'search':
    search = {
      'name': 'student_search',
      'multipliers': (0.125, 0.25, 0.5, 1.0),
      'drops': (0.01, 0.03, 0.1),
      **PIECES,
    }
    rows = {'search': search}
  elif kind == 'bottleneck':
    student = {'name': 'narrowed', 'network': NETWORK}
    student['multiplier'] = float(multiplier)
    rows['neighbourhoods'] = {'name': 'neighbourhood', **PIECES}
  elif kind == 'width':
    student = {'name': 'scaled', 'network': NETWORK, 'share': float(multiplier)}
  else:
    raise ValueError(
      f'expected search, or bottleneck or width with ,0.5, got {students!r}'
    )
  return {
    'data': {'name': 'digits', 'train_subset': 200},
    'teacher': {**NETWORK, 'training': {'subset': 'train', 'epochs': 20}},
    'student': student,
    'subset': 'train_subset',
    'batch_size': 50,
    'epochs': 60,
    'evaluate_every': 60,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': rows,
  }
