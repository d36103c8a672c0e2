"""Neighbourhood Distillation, Figures 3b and 6: student search with ResNet-50.

  jaxdistill --config=configs/neighbourhood/imagenet_search.py
  jaxdistill --config=configs/neighbourhood/imagenet_search.py:0.5

The first command searches. The second one trains the search's other rival, a
network with the given fraction of all widths in all layers.

Paper: Shao et al., Neighbourhood Distillation: On the benefits of non
end-to-end distillation, 2020.

Setting: ten candidates for each of the 16 bottlenecks, whose two inner layers
are narrowed, and one student for each drop of the partial model's accuracy. The
paper gives neither rate nor length of Neighbourhood Distillation and of
fine-tuning, nor the split on which drops are measured. The values are ours. All
candidates of a block are one stack, which `--model_parallel=N` distributes over
N devices. The results of a search include the students with the same k in all
blocks, before fine-tuning; `imagenet_resnet50.py` has them with fine-tuning.

Held out: 10,000 of the 1,281,167 training images, on which drops are measured.

Hardware: intended for GPUs. We have not run this config.
"""

ARGUMENTS = ('search', '0.5')
HELD_OUT = 10000
DROPS = (0.001, 0.0025, 0.005, 0.01, 0.02)


def get_config(width='search'):
  """Returns the search, or KD to a student with a fraction of all widths."""
  teacher = {'name': 'resnet50'}
  student = teacher
  kd = {'name': 'joint', 'terms': {'tempered': {'temperature': 2.5}}}
  rows = {
    'methods': {
      'kd': kd,
      'search': {
        'name': 'student_search',
        'drops': DROPS,
        'form': 'stack',
        'neighbourhood_epochs': 60,
        'fine_tune': kd,
        'epochs': 50,
        'schedule': {'name': 'constant', 'rate': 1e-2},
      },
    }
  }
  if width != 'search':
    fraction = float(width)
    student = {
      **teacher,
      'stem_width': int(64 * fraction),
      'widths': tuple(int(fraction * w) for w in (64, 128, 256, 512)),
    }
    rows = {'method': kd}
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'validation': HELD_OUT,
      'image_size': 256,
    },
    'augment': {'name': 'imagenet'},
    'teacher': teacher,
    'student': student,
    'batch_size': 32,
    'epochs': 200,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.02,
      'boundaries': tuple(e / 200 for e in range(30, 200, 30)),
      'factor': 0.2,
    },
    **rows,
  }
