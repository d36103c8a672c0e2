"""DistPro's searches for ImageNet, done on Tiny-ImageNet.

  jaxdistill --config=configs/distpro/tiny_imagenet.py:mobilenet \
    --config.data.path=tiny-imagenet --config.teacher.checkpoint=TEACHER

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Data: the folder holds `train/CLASS/*` and `val/CLASS/*`. Images are resized to
224 pixels, as the paper does with CIFAR-100.

Setting: 20 epochs with a cosine schedule. Without `--config.teacher.checkpoint`
a teacher of these classes is trained first. The search writes the process to
`WORKDIR/rows/distpro_search/0/process.json`, and `imagenet.py` replays it.

Held out: nothing of the 100,000 training images, except by the search itself.

Hardware: intended for a GPU. We have not run this config.
"""

# Pair -> the student's network, the teacher's.
PAIRS = {
  'mobilenet': ('mobilenet_v1', 'resnet50'),
  'resnet18': ('resnet18', 'resnet34'),
}
ARGUMENTS = tuple(PAIRS)


def get_config(pair='mobilenet'):
  """Returns a search over 15 pathways that holds out a fifth of the images."""
  if pair not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {pair!r}')
  student, teacher = PAIRS[pair]
  return {
    'data': {
      'name': 'folder',
      'path': 'tiny-imagenet',
      'image_size': 224,
      'validation': 0,
    },
    'augment': {'name': 'imagenet', 'scale': (0.25, 1.0)},
    'teacher': {'name': teacher, 'training': {'epochs': 100}},
    'student': {'name': student},
    'batch_size': 512,
    'epochs': 20,
    'evaluate_every': 5,
    'optimizer': {'name': 'sgd', 'weight_decay': 1e-4},
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'method': {
      'name': 'distpro_search',
      'space': {'name': 'same_or_deeper'},
    },
  }
