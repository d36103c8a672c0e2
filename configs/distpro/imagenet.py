"""DistPro, Tables 2, 3 and 4 (a, b) and Figure 5: ImageNet.

  jaxdistill --config=configs/distpro/imagenet.py:mobilenet \
    --config.teacher.weights=resnet50.pth
  jaxdistill --config=configs/distpro/imagenet.py:resnet18 \
    --config.teacher.weights=resnet34.pth

The weights are torchvision's.

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Setting: 15 pathways, batch size 512, and a cosine that starts at 0.1. Figure 5
varies the length from 10 to 100 epochs: `--config.epochs=10`. Here the student
searches its process on ImageNet. The paper searches it on Tiny-ImageNet or
CIFAR-100 (see `tiny_imagenet.py`) and replays it, also for the other pair of
networks:

  --config.methods.distpro.process=RUN/rows/distpro_search/0/process.json

Hardware: intended for GPUs. We have not run this config.

Paper's top-1/top-5 accuracy at 100 epochs of teacher, student, ReviewKD and
DistPro:
MobileNet 76.16/93.86, 68.87/88.76, 73.12/91.22, 73.26/91.27 (DistPro has 72.54
at 50 epochs, and 65.25 at 10, where ReviewKD has 62.03);
ResNet-18 73.31/91.42, 69.75/89.07, 71.76/90.67, 71.89/90.76 (DistPro has 71.59
at 65 epochs).
"""

# Pair -> the student's network, the teacher's, ReviewKD's weight.
PAIRS = {
  'mobilenet': ('mobilenet_v1', 'resnet50', 8.0),
  'resnet18': ('resnet18', 'resnet34', 1.0),
}
ARGUMENTS = tuple(PAIRS)


def get_config(pair='mobilenet'):
  """Returns rows with the same epochs, to which a search adds its own."""
  if pair not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {pair!r}')
  student, teacher, review = PAIRS[pair]
  return {
    'data': {'name': 'tfds', 'dataset': 'imagenet2012', 'image_size': 256},
    'augment': {'name': 'imagenet'},
    'teacher': {'name': teacher},
    'student': {'name': student},
    'batch_size': 512,
    'epochs': 100,
    'evaluate_every': 5,
    'optimizer': {'name': 'sgd', 'weight_decay': 1e-4},
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': {
      'student alone': {'name': 'supervised'},
      'reviewkd': {'name': 'reviewkd', 'weight': review, 'warmup': 0.0},
      'distpro': {
        'name': 'distpro',
        'search_epochs': 20,
        'space': {'name': 'same_or_deeper'},
      },
    },
  }
