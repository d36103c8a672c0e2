"""MLD, Figure 1 on a small scale: inserted layers learn the identity.

  jaxdistill --config=configs/masked_layer/digits_insert.py

Paper: Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021.

Setting: the student is the teacher, a VGG-8 of an eighth of the width that has
seen 1,000 images of digits, with one more convolution in its second and in its
third group. In the row 'identity' the teacher's feature before an inserted
convolution is also its target, so that every convolution has a target; the
teacher's own layers are copied and stay as they are. In the row 'new' all
layers of the student start with new weights.

Hardware and time: two CPU cores, a few minutes. Nothing is downloaded.
"""

TEACHER = {'name': 'vgg8', 'width': 0.125}


def convolution(group):
  """Returns a convolution as wide as those of a group."""
  return {
    'name': 'stages',
    'network': {'name': 'vgg13', 'width': 0.125},
    'start': f'group{group}.conv2',
  }


def inserted(network, group):
  """Returns a network with one more convolution at the end of a group."""
  return {
    'name': 'inserted',
    'network': network,
    'after': f'group{group}.conv1',
    'part': convolution(group),
  }


def get_config():
  """Returns scratch, the identity, and a student with new weights."""
  mld = {
    'name': 'masked_layer',
    'breakpoints': 'blocks',
    'repeat_teacher': True,
    'masks': {'max_drop': 1.0},
    'layers': {'epochs': 8, 'statistics_steps': 20},
    'epochs': 8,
  }
  return {
    'data': {'name': 'digits'},
    'teacher': {**TEACHER, 'training': {'epochs': 20}},
    'student': inserted(inserted(TEACHER, 2), 3),
    'batch_size': 50,
    'epochs': 16,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.05},
    'methods': {
      'scratch': {'name': 'supervised'},
      'identity': {**mld, 'inherit': True, 'end_to_end': False},
      'new': mld,
    },
  }
