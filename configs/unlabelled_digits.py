"""Digits without labels: the student learns from the teacher's outputs alone.

  python -m jaxdistill.main --config=configs/unlabelled_digits.py

The setting of `configs/quickstart.py`: a ResNet-8 teacher that was trained on
1,000 labelled digits, and a student with 1,710 parameters. `label_weight=0`
removes the labels from the loss of `kd`; `refinery` never uses them. The last
two rows train on all 1,000 images instead of 200, for the same 300 steps. The
teacher has seen these images with their labels.

Hardware and time: two CPU cores, about two minutes. Nothing is downloaded.

Test accuracy over three seeds: labels of 200 images 88.61, `kd` without labels
on 200 images 92.02 and on 1,000 images 96.43. RESULTS.md has all rows.
"""


def get_config():
  """Returns the config."""
  return {
    'data': {'name': 'digits', 'train_subset': 200},
    'teacher': {
      'name': 'resnet8',
      'training': {'subset': 'train', 'epochs': 20},
    },
    'student': {'name': 'resnet8', 'stem_width': 4, 'widths': (4, 4, 8)},
    'subset': 'train_subset',
    'batch_size': 64,
    'epochs': 100,
    'evaluate_every': 5,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'labels only, 200': {
        'name': 'supervised',
        'schedule': {'name': 'cosine', 'rate': 0.3},
      },
      'kd and labels, 200': {'name': 'kd'},
      'kd, no labels, 200': {'name': 'kd', 'label_weight': 0.0},
      'kd, no labels, 1,000': {
        'name': 'kd',
        'label_weight': 0.0,
        'subset': 'train',
        'epochs': 20,
      },
      'refinery, 1,000': {
        'name': 'refinery',
        'subset': 'train',
        'epochs': 20,
      },
    },
  }
