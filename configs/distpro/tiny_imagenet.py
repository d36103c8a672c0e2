"""DistPro's searches for ImageNet: on Tiny-ImageNet, 20 epochs, a cosine.

  jaxdistill --config=configs/distpro/tiny_imagenet.py:mobilenet \
    --config.data.path=tiny-imagenet --config.teacher.checkpoint=TEACHER

The folder holds `train/CLASS/*` and `val/CLASS/*`; images are resized to 224
pixels as the paper does with CIFAR-100. A teacher of these classes is trained
where none is given. `WORKDIR/rows/distpro_search/0/process.json` is what
`imagenet.py` replays. Made for a GPU; not run yet.
"""

import ml_collections

PAIRS = {
  'mobilenet': ('mobilenet_v1', 'resnet50'),
  'resnet18': ('resnet18', 'resnet34'),
}
ARGUMENTS = tuple(PAIRS)


def get_config(pair='mobilenet'):
  """15 pathways; a fifth of the images is held out for the weights."""
  if pair not in ARGUMENTS:
    raise ValueError(f'{pair!r} is none of {", ".join(ARGUMENTS)}')
  student, teacher = PAIRS[pair]
  config = ml_collections.ConfigDict()
  config.data = {
    'name': 'folder',
    'path': 'tiny-imagenet',
    'image_size': 224,
    'validation': 0.1,
  }
  config.augment = {'name': 'imagenet', 'scale': (0.25, 1.0)}
  config.teacher = {'name': teacher, 'training': {'epochs': 100}}
  config.student = {'name': student}
  config.batch_size = 512
  config.epochs = 20
  config.evaluate_every = 5
  config.optimizer = {'name': 'sgd', 'weight_decay': 1e-4}
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  config.method = {
    'name': 'distpro_search',
    'space': {'name': 'same_or_deeper'},
  }
  return config
