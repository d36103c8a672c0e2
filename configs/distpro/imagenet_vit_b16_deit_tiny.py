"""DistPro's Table 4 (c): ImageNet, ViT-B/16 -> DeiT-tiny.

  jaxdistill --config=configs/distpro/imagenet_vit_b16_deit_tiny.py \
    --config.teacher.weights=vit_b16.pth

The features are the tokens after every third block and the normalised class
token, 15 pathways by a linear map and layer norm. DeiT's recipe: AdamW, the
cosine with five epochs of warm-up, weight decay, drop path, smoothed labels,
RandAugment, Mixup or CutMix, and each image three times in a batch; not here
are random erasing and the spread of RandAugment's strength. Made for GPUs; not
run yet.

Paper, top-1: teacher 85.1, DistPro 73.51 at 150 epochs and 73.41 at 100,
ReviewKD 73.44 at 150.
"""

import ml_collections

BLOCKS = tuple(f'group1.block{i}' for i in (3, 6, 9, 12))
LEVELS = (*BLOCKS, 'pool')


def get_config():
  """DeiT's rate of 5e-4 is for batches of 512."""
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'imagenet2012', 'image_size': 256}
  config.augment = {
    'name': 'repeated',
    'augment': {
      'name': 'regularized',
      'augment': {'name': 'imagenet'},
      'policy': {'name': 'randaugment'},
      'mix': {'name': 'alternate'},
    },
  }
  config.task = {'label_smoothing': 0.1}
  config.teacher = {'name': 'vit_b16', 'training': {'epochs': 300}}
  config.student = {'name': 'deit_tiny', 'drop_path': 0.1}
  config.batch_size = 512
  config.epochs = 150
  config.evaluate_every = 5
  config.optimizer = {'name': 'adamw', 'weight_decay': 0.05}
  config.schedule = {
    'name': 'cosine',
    'rate': 5e-4,
    'warmup': 1 / 30,
    'final': 1e-5,
  }
  space = {
    'name': 'same_or_deeper',
    'transforms': ('tokens',),
    'student': LEVELS,
    'teacher': LEVELS,
  }
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      'equal weights': {
        'name': 'distpro_retrain',
        'use': 'equal',
        'space': space,
      },
      'distpro': {'name': 'distpro', 'search_epochs': 20, 'space': space},
    },
    sort_keys=False,
  )
  return config
