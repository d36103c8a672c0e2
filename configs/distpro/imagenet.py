"""DistPro's Tables 2, 3 and 4 (a, b) and Figure 5: ImageNet.

  jaxdistill --config=configs/distpro/imagenet.py:mobilenet \
    --config.teacher.weights=resnet50.pth

or `:resnet18` with resnet34.pth, both torchvision's. The student searches its
process on ImageNet; the paper searches it on Tiny-ImageNet or CIFAR-100, see
`tiny_imagenet.py`, and replays it, also for the other pair of networks:

  --config.methods.distpro.process=RUN/rows/distpro_search/0/process.json

15 pathways; a cosine from 0.1, batches of 512, with 10 to 100 epochs in
Figure 5: `--config.epochs=10`. Made for GPUs; not run yet.

Paper, top-1/top-5 at 100 epochs of teacher, student, ReviewKD, DistPro:
MobileNet 76.16/93.86, 68.87/88.76, 73.12/91.22, 73.26/91.27 (72.54 at 50
epochs, 65.25 at 10, where ReviewKD has 62.03); ResNet-18 73.31/91.42,
69.75/89.07, 71.76/90.67, 71.89/90.76 (71.59 at 65).
"""

import ml_collections

# Student: its network, the teacher's, ReviewKD's weight.
PAIRS = {
  'mobilenet': ('mobilenet_v1', 'resnet50', 8.0),
  'resnet18': ('resnet18', 'resnet34', 1.0),
}
ARGUMENTS = tuple(PAIRS)


def get_config(pair='mobilenet'):
  """Every row has the same epochs, but for the search."""
  if pair not in ARGUMENTS:
    raise ValueError(f'{pair!r} is none of {", ".join(ARGUMENTS)}')
  student, teacher, review = PAIRS[pair]
  config = ml_collections.ConfigDict()
  config.data = {'name': 'tfds', 'dataset': 'imagenet2012', 'image_size': 256}
  config.augment = {'name': 'imagenet'}
  config.teacher = {'name': teacher}
  config.student = {'name': student}
  config.batch_size = 512
  config.epochs = 100
  config.evaluate_every = 5
  config.optimizer = {'name': 'sgd', 'weight_decay': 1e-4}
  config.schedule = {'name': 'cosine', 'rate': 0.1}
  config.methods = ml_collections.ConfigDict(
    {
      'student alone': {'name': 'supervised'},
      'reviewkd': {'name': 'reviewkd', 'weight': review, 'warmup': 0.0},
      'distpro': {
        'name': 'distpro',
        'search_epochs': 20,
        'space': {'name': 'same_or_deeper'},
      },
    },
    sort_keys=False,
  )
  return config
