"""Depth on a small scale: DistPro's Table 6, on drawn scenes or one photograph.

  jaxdistill --config=configs/dense/small_depth.py:scenes
  jaxdistill --config=configs/dense/small_depth.py:motorcycle
  jaxdistill --config=configs/dense/small_depth.py:scenes \
    --config.task.samples=100 --workdir=runs/scenes_with_samples

Paper: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via
Meta Optimization, 2022. The networks are narrow forms of those of Ma and
Karaman, Sparse-to-Dense: Depth Prediction from Sparse Depth Samples and a
Single Image, 2018; with `samples`, they see true depths at random places.

Data: 'scenes' are drawn by the library and need no download. 'motorcycle' is
the only photograph with true disparities in scikit-image, of Scharstein et al.,
High-Resolution Stereo Datasets with Subpixel-Accurate Ground Truth, 2014. The
left half of the image is for training and the right half for the test, in tiles
of 60x80 pixels. This file writes the data, with scikit-image and its downloads:

  pip install scikit-image pooch
  python configs/dense/small_depth.py motorcycle.npz

One photograph shows that the code runs on real depths, and no more.

Setting: ResNet-18s with 16 and 12 channels (8 on the photograph) reduce the
resolution to a sixteenth, and a decoder enlarges it to a half. The batch size
is 16. On 'scenes', AdamW without zooms, 40 epochs for the teacher and 20 for
the students; RESULTS.md says what was tried before. On the photograph, SGD with
zooms and 20 epochs for all. The weights are the defaults of the methods, and
were not tuned.

Hardware and time: one CPU core that other programs used at the same time. On
'scenes', the teacher took 5 minutes, and a student 1 to 5 minutes.

Test RMSE in metres on 'scenes', three seeds: the mean of the training depths at
each pixel 1.155, teacher 0.723, student alone 1.065, KD 0.988, ReviewKD 0.817.
'equal weights' and DistPro were not run in this setting. RESULTS.md has all
rows, and what was tried before.
"""

import sys

import numpy as np

ARGUMENTS = ('scenes', 'motorcycle')
DATA = {
  'scenes': {'name': 'scenes'},
  'motorcycle': {'name': 'npz', 'path': 'motorcycle.npz', 'validation': 0},
}
# A level camera sees the rooms, so that the row of the image in which a thing
# meets the floor tells its distance. Zooms with crops would hide this cue.
ZOOM = {'scenes': (1.0, 1.0), 'motorcycle': (1.0, 1.25)}
STUDENT_WIDTH = {'scenes': 12, 'motorcycle': 8}
TEACHER_EPOCHS = {'scenes': 40, 'motorcycle': 20}
OPTIMIZER = {
  'scenes': {
    'name': 'adamw',
    'schedule': {'name': 'cosine', 'rate': 0.003, 'warmup': 0.05},
  },
  'motorcycle': {
    'name': 'sgd',
    'schedule': {'name': 'step', 'rate': 0.05, 'boundaries': (1 / 3, 2 / 3)},
  },
}
# Pixels and millimetres, of the image at a quarter of its size.
FOCAL, OFFSET, BASELINE = 994.978, 31.086, 193.001


def network(width):
  """Returns a ResNet-18 of some width with a decoder for depths."""
  return {
    'name': 'upproj',
    'doublings': 3,
    'network': {
      'name': 'resnet18',
      'stem_width': width,
      'widths': (width, 2 * width, 4 * width, 8 * width),
      'strides': (1, 2, 2, 1),
    },
  }


def get_config(data='scenes'):
  """Returns rows of 20 epochs; DistPro's search is extra."""
  space = {'name': 'same_or_deeper', 'pool': False}
  return {
    'data': DATA[data],
    'task': {'name': 'depth'},
    'augment': {
      'name': 'scale_crop',
      'size': (48, 64),
      'scale': ZOOM[data],
      'brightness': 0.2,
      'contrast': 0.2,
      'saturation': 0.2,
    },
    'teacher': {
      **network(16),
      'training': {'epochs': TEACHER_EPOCHS[data]},
    },
    'student': network(STUDENT_WIDTH[data]),
    'batch_size': 16,
    'epochs': 20,
    'evaluate_every': 10,
    'seeds': 3,
    'optimizer': {**OPTIMIZER[data], 'weight_decay': 1e-4, 'clip': 5.0},
    'methods': {
      'student alone': {'name': 'supervised'},
      'KD': {'name': 'depth_kd'},
      'ReviewKD': {'name': 'reviewkd'},
      'equal weights': {
        'name': 'distpro_retrain',
        'use': 'equal',
        'space': space,
      },
      'DistPro': {'name': 'distpro', 'search_epochs': 7, 'space': space},
    },
  }


def tiles(image, disparity, size=(60, 80), step=15):
  """Returns the arrays of a data set of one image, `[H, W, 3]`.

  The training tiles overlap, and the test tiles do not.
  """
  known = np.isfinite(disparity)
  depth = BASELINE * FOCAL / (np.where(known, disparity, 0) + OFFSET) / 1000
  depth = np.where(known, depth, 0).astype(np.float32)
  half, arrays = image.shape[1] // 2, {}
  for split, first, last, steps in (
    ('train', 0, half, (step, step)),
    ('test', half, image.shape[1], size),
  ):
    corners = [
      (y, x)
      for y in range(0, image.shape[0] - size[0] + 1, steps[0])
      for x in range(first, last - size[1] + 1, steps[1])
    ]
    for name, whole in (('image', image), ('depth', depth)):
      arrays[f'{split}_{name}'] = np.stack(
        [whole[y : y + size[0], x : x + size[1]] for y, x in corners]
      )
  return arrays


if __name__ == '__main__':
  import skimage.data

  left, _, disparities = skimage.data.stereo_motorcycle()
  np.savez(sys.argv[1], **tiles(left[::2, ::2], disparities[::2, ::2]))
