"""MLD, Table 4: ResNet-34 teaches ResNet-18 on ImageNet, and vice versa.

  jaxdistill --config=configs/masked_layer/imagenet_resnet.py:resnet18 \
    --config.teacher.weights=resnet34.pth
  jaxdistill --config=configs/masked_layer/imagenet_resnet.py:resnet34 \
    --config.teacher.weights=resnet18.pth

The argument after the colon is the student. The teacher has torchvision's
weights; without the last line of a command a teacher is trained.

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: the blocks are paired as in the paper. The layers have 12 epochs. The
whole ResNet-18 then has 7; the larger student, ResNet-34, has 32, and then 20
on labels. This adds up to the paper's numbers of epochs; those that learn the
masks are additional. The rivals have 90 epochs. The schedule is a
cosine that starts at 0.1, and at 0.01 for the last epochs on labels.

Held out: 10,000 of the 1,281,167 training images, on which MLD measures how
much noise its masks may let pass.

Hardware: intended for GPUs. We have not run this config.

Paper's top-1 accuracy and epochs: ResNet-18 by MLD + LR 70.1 in 19, by LR 70.3
in 61, from scratch 69.8 in 83; ResNet-34 by MLD + LR and labels 73.3 in 64,
from scratch 73.2 in 90.
"""

# Student -> the teacher, epochs of the whole student, epochs on labels.
PAIRS = {'resnet18': ('resnet34', 7, 0), 'resnet34': ('resnet18', 32, 20)}
ARGUMENTS = tuple(PAIRS)


def get_config(student='resnet18'):
  """Returns scratch, Label Refinery (also as long as MLD), and MLD."""
  if student not in PAIRS:
    raise ValueError(f'expected one of {", ".join(PAIRS)}, got {student!r}')
  teacher, whole_epochs, label_epochs = PAIRS[student]
  optimizer = {'name': 'sgd', 'weight_decay': 1e-4}
  mld = {
    'name': 'masked_layer',
    'breakpoints': 'blocks',
    'layers': {'epochs': 12},
    'label_epochs': label_epochs,
    'label_optimizer': {
      **optimizer,
      'schedule': {'name': 'cosine', 'rate': 0.01},
    },
    'epochs': whole_epochs,
  }
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'image_size': 256,
      'validation': 10_000,
    },
    'augment': {'name': 'imagenet'},
    'teacher': {'name': teacher},
    'student': {'name': student},
    'batch_size': 256,
    'epochs': 90,
    'optimizer': optimizer,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'scratch': {'name': 'supervised'},
      'refinery': {'name': 'refinery'},
      'refinery, as long': {
        'name': 'refinery',
        'epochs': 12 + whole_epochs + label_epochs,
      },
      'mld': mld,
    },
  }
