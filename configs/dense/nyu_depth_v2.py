"""DistPro, Table 6: depth on NYU Depth V2.

  jaxdistill --config=configs/dense/nyu_depth_v2.py --config.data.path=FILE

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022. The networks are those of Ma and Karaman,
Sparse-to-Dense: Depth Prediction from Sparse Depth Samples and a Single Image,
2018, without the sparse samples.

Data: FILE is an npz file with train_image and test_image, uint8
[N, 240, 320, 3], and train_depth and test_depth, float16 [N, 240, 320], metres.
The 47,584 training and 654 test images of the data set nyu_depth_v2 of
TensorFlow Datasets have twice this size. They need 18 GB of memory.

Setting: an encoder and decoder on ResNet-50 teach one on ResNet-18; 15 epochs
of batch size 8, parts of 228x304, and a rate of 0.01 that falls to a tenth
every five epochs. Plain KD is the mean absolute difference to the teacher's
depths. The paper's RMSE cannot be reached from colours alone, for which the
authors of the networks report 0.514: its networks must see samples of the
depth too, but it does not say how many. `--config.task.samples=200` gives 200.

Held out: nothing of the 47,584 training images.

Hardware: intended for GPUs. We have not run this config.

Paper's RMSE of student, KD, ReviewKD, equal weights and DistPro: 0.2032,
0.2045, 0.1983, 0.2030, 0.1972.
"""


def network(depth):
  """Returns an encoder and decoder on a ResNet of some depth."""
  return {
    'name': 'upproj',
    'num_classes': 1,
    'network': {'name': f'resnet{depth}'},
  }


def get_config():
  """Returns rows of 15 epochs; DistPro's search is extra."""
  space = {'name': 'same_or_deeper', 'pool': False}
  return {
    'data': {'name': 'npz', 'path': 'nyu_depth_v2.npz', 'validation': 0},
    'task': {'name': 'depth'},
    'augment': {
      'name': 'scale_crop',
      'size': (228, 304),
      'scale': (1.0, 1.5),
      'brightness': 0.4,
      'contrast': 0.4,
      'saturation': 0.4,
    },
    'teacher': {**network(50), 'training': {'epochs': 15}},
    'student': network(18),
    'batch_size': 8,
    'epochs': 15,
    'seeds': 3,
    'optimizer': {
      'name': 'sgd',
      'schedule': {'name': 'step', 'rate': 0.01, 'boundaries': (1 / 3, 2 / 3)},
      'weight_decay': 1e-4,
    },
    'methods': {
      'student': {'name': 'supervised'},
      'KD': {'name': 'depth_kd'},
      'ReviewKD': {'name': 'reviewkd'},
      'equal weights': {
        'name': 'distpro_retrain',
        'use': 'equal',
        'space': space,
      },
      'DistPro': {'name': 'distpro', 'search_epochs': 5, 'space': space},
    },
  }
