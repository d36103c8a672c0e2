"""SSKD, Table 1: does a classifier that is trained by itself do as well?

  jaxdistill --config=configs/sskd/imagenet_fixed_backbone.py:kd
  jaxdistill --config=configs/sskd/imagenet_fixed_backbone.py:teacher

The first command is for ResNet-18 distilled by KD from ResNet-34, the second
for ResNet-34 trained on labels. Each row trains its own network.

Paper: Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Held out: nothing of the 1,281,167 training images.

Hardware: intended for GPUs. We have not run this config.

Paper's top-1/top-5 accuracy end to end and with a new classifier: ResNet-34
73.55/91.46, 73.53/91.44; KD 70.76/89.81, 70.75/89.84.
"""

ARGUMENTS = ('kd', 'teacher')


def get_config(experiment='kd'):
  """Returns 100 epochs for the network and 60 for the new classifier."""
  if experiment not in ARGUMENTS:
    raise ValueError(
      f'expected one of {", ".join(ARGUMENTS)}, got {experiment!r}'
    )
  models = {'student': {'name': 'resnet34'}}
  whole = {'name': 'supervised'}
  if experiment == 'kd':
    models = {'student': {'name': 'resnet18'}, 'teacher': {'name': 'resnet34'}}
    whole = {'name': 'kd', 'weight': 15 / 16, 'label_weight': 1.0}
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'validation': 0,
      'image_size': 256,
    },
    'augment': {'name': 'imagenet'},
    **models,
    'batch_size': 256,
    'epochs': 100,
    'optimizer': {'name': 'sgd', 'nesterov': False, 'weight_decay': 1e-4},
    'schedule': {
      'name': 'step',
      'rate': 0.1,
      'boundaries': (0.3, 0.6, 0.9),
    },
    'methods': {
      'end to end': whole,
      'new classifier': {
        'name': 'fixed_backbone',
        'method': whole,
        'head_epochs': 60,
      },
    },
  }
