"""DistPro, Tables 2, 3 and 4 (a, b) and Figure 5: ImageNet.

  jaxdistill --config=configs/distpro/imagenet.py:mobilenet \
    --config.teacher.weights=resnet50.pth
  jaxdistill --config=configs/distpro/imagenet.py:resnet18 \
    --config.teacher.weights=resnet34.pth

The weights are torchvision's. Table 2 and Figure 5 compare lengths of training,
all with the same process:

  jaxdistill --config=configs/distpro/imagenet.py:mobilenet-epochs,FILE \
    --config.teacher.weights=resnet50.pth --workdir=runs/epochs

FILE is the process of a search, rows/distpro_search/0/process.json in the work
directory of `tiny_imagenet.py`. Without a comma and a file, each row of DistPro
searches for itself.

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022.

Setting: 15 pathways, batch size 512, and a cosine that starts at 0.1. Without
FILE the student searches its process on ImageNet. The paper searches it on
Tiny-ImageNet or CIFAR-100 (see `tiny_imagenet.py`) and replays it, also for the
other pair of networks (Table 3).

Held out: nothing of the 1,281,167 training images.

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
EPOCHS = (10, 20, 30, 50, 65, 100)
ARGUMENTS = (*PAIRS, *(f'{pair}-epochs' for pair in PAIRS))


def lengths(methods):
  """Returns a row for each method and number of epochs."""
  return {
    f'{label}, {epochs} epochs': {**method, 'epochs': epochs}
    for epochs in EPOCHS
    for label, method in methods.items()
  }


def get_config(argument='mobilenet'):
  """Returns rows of 100 epochs, or of several lengths; a search is extra."""
  name, _, process = argument.partition(',')
  if name not in ARGUMENTS:
    raise ValueError(f'expected one of {", ".join(ARGUMENTS)}, got {name!r}')
  student, teacher, review = PAIRS[name.removesuffix('-epochs')]
  methods = {
    'reviewkd': {'name': 'reviewkd', 'weight': review, 'warmup': 0.0},
    'distpro': {
      'name': 'distpro',
      'process': process or None,
      'search_epochs': 20,
      'space': {'name': 'same_or_deeper'},
    },
  }
  alone = {'student alone': {'name': 'supervised'}}
  return {
    'data': {
      'name': 'tfds',
      'dataset': 'imagenet2012',
      'validation': 0,
      'image_size': 256,
    },
    'augment': {'name': 'imagenet'},
    'teacher': {'name': teacher},
    'student': {'name': student},
    'batch_size': 512,
    'epochs': 100,
    'evaluate_every': 5,
    'optimizer': {'name': 'sgd', 'weight_decay': 1e-4},
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': lengths(methods) if '-' in name else {**alone, **methods},
  }
