"""DistPro, Tables 2 and 4 (c): ViT-B/16 teaches DeiT-tiny on ImageNet.

  jaxdistill --config=configs/distpro/imagenet_vit_b16_deit_tiny.py \
    --config.teacher.weights=vit_b16.pth
  jaxdistill --config=configs/distpro/imagenet_vit_b16_deit_tiny.py:100 \
    --config.teacher.weights=vit_b16.pth

The argument after the colon is the number of epochs, 150 or 100 in the paper.

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Setting: the features are the tokens after every third block and the normalised
class token. They are paired by 15 pathways, each with a linear map and a layer
norm. ReviewKD fuses the same five levels, whose patches count as maps; the
paper does not say how it applies ReviewKD to tokens, nor its weight. The recipe
is DeiT's: AdamW, a cosine with five epochs of warm-up, weight decay, drop path,
smoothed labels, RandAugment, Mixup or CutMix, and each image three times in a
batch. Two parts of that recipe are missing here: random erasing, and the random
spread of RandAugment's strength.

Held out: nothing of the 1,281,167 training images.

Hardware: intended for GPUs. We have not run this config.

Paper's top-1 accuracy: teacher 85.1; DistPro 73.51 at 150 epochs and 73.41 at
100; ReviewKD 73.44 at 150.
"""

BLOCKS = tuple(f'group1.block{i}' for i in (3, 6, 9, 12))
LEVELS = (*BLOCKS, 'pool')
ARGUMENTS = ('150', '100')


def get_config(epochs='150'):
  """Returns DeiT's recipe, whose rate of 5e-4 is for batches of 512."""
  space = {
    'name': 'same_or_deeper',
    'transforms': ('tokens',),
    'student': LEVELS,
    'teacher': LEVELS,
  }
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'validation': 0,
      'image_size': 256,
    },
    'augment': {
      'name': 'repeated',
      'augment': {
        'name': 'regularized',
        'augment': {'name': 'imagenet'},
        'policy': {'name': 'randaugment'},
        'mix': {'name': 'alternate'},
      },
    },
    'task': {'label_smoothing': 0.1},
    'teacher': {'name': 'vit_b16', 'training': {'epochs': 300}},
    'student': {'name': 'deit_tiny', 'drop_path': 0.1},
    'batch_size': 512,
    'epochs': int(epochs),
    'evaluate_every': 5,
    'optimizer': {'name': 'adamw', 'weight_decay': 0.05},
    'schedule': {
      'name': 'cosine',
      'rate': 5e-4,
      'warmup': 5 / int(epochs),
      'final': 1e-5,
    },
    'methods': {
      'student alone': {'name': 'supervised'},
      'reviewkd': {
        'name': 'reviewkd',
        'warmup': 0.0,
        'feature_pairs': tuple(zip(LEVELS, LEVELS)),
      },
      'equal weights': {
        'name': 'distpro_retrain',
        'use': 'equal',
        'space': space,
      },
      'distpro': {'name': 'distpro', 'search_epochs': 20, 'space': space},
    },
  }
