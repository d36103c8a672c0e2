"""The options of the command line, as arguments of `argparse`."""

import argparse
from typing import Any

from jaxdistill.study import listing

# The formats of an export, see `exports.export`.
FORMATS = ('safetensors', 'stablehlo', 'onnx', 'tflite')
INT8 = ('weights', 'full')


def _number_or_text(text: str) -> float | str:
  try:
    return float(text)
  except ValueError:
    return text


def _views(text: str) -> bool | int | str:
  """Returns the value of `--cache_teacher`."""
  if text.isdecimal():
    return int(text)
  if text not in ('auto', 'yes', 'no'):
    raise argparse.ArgumentTypeError(
      f'expected auto, yes, no or a whole number, got {text!r}'
    )
  return {'yes': True, 'no': False}.get(text, text)


def _formats(text: str) -> tuple[str, ...]:
  """Splits a list of formats."""
  formats = tuple(text.split(','))
  if not set(formats) <= set(FORMATS):
    raise argparse.ArgumentTypeError(
      f'expected {" or ".join(FORMATS)}, got {text!r}'
    )
  return formats


def _piece(text: str) -> int | str:
  """Returns the number of a piece, or 'all'."""
  if text == 'all':
    return text
  if not text.isdecimal():
    raise argparse.ArgumentTypeError(
      f"expected a number from 0, or 'all', got {text!r}"
    )
  return int(text)


# The options of several commands.
OPTIONS: dict[str, dict[str, Any]] = {
  'config': {
    'help': 'Python file with the config; default: the config that --workdir '
    'was made with'
  },
  'workdir': {'help': 'directory for all results; default: runs/CONFIG'},
  'mode': {
    'default': 'fit',
    'choices': ('fit', 'evaluate', 'export'),
    'help': 'train, evaluate finished runs again, or write the students '
    'without their teacher; default: fit',
  },
  'row': {
    'action': 'append',
    'help': 'label of a row; only this row is used, besides the teacher. Can '
    'be repeated; default: all rows',
  },
  'fast_cpu': {
    'action': 'store_true',
    'help': 'restart the process with settings and computations that are '
    'faster on a CPU',
  },
  'format': {
    'type': _formats,
    'help': f'formats of an export, separated by commas: {", ".join(FORMATS)}; '
    'default: safetensors',
  },
  'int8': {
    'choices': INT8,
    'help': 'what becomes integers of 8 bits in a file of the format tflite: '
    'the weights, or with full the features, too',
  },
  'no_adapter': {
    'dest': 'adapter',
    'action': 'store_false',
    'help': 'export students of the task embedding without their adapter, the '
    "layer that maps their vectors to the teacher's",
  },
  'push_to_hub': {
    'metavar': 'OWNER/NAME',
    'help': 'upload the exported files and their model cards to this model on '
    'the Hugging Face Hub',
  },
  'piece': {
    'type': _piece,
    'help': 'number, from 0, of the only piece to train, for methods whose '
    "pieces are independent, such as neighbourhood; 'all': every piece, each "
    'on a device of its own. A later run joins the pieces',
  },
  'model_parallel': {
    'type': int,
    'default': 1,
    'help': 'number of devices that share each large array; default: 1',
  },
}
# Those of several processes.
CLUSTER: dict[str, dict[str, Any]] = {
  'distributed': {
    'action': 'store_true',
    'help': 'train with several processes, which JAX finds by asking the '
    'cluster',
  },
  'coordinator': {
    'help': 'HOST:PORT of the first process, if JAX cannot find the cluster'
  },
  'num_processes': {
    'type': int,
    'help': 'number of processes, with --coordinator',
  },
  'process_id': {
    'type': int,
    'help': 'number of this process from 0, with --coordinator',
  },
  'timeout': {
    'type': float,
    'default': 300.0,
    'help': 'seconds to wait for a process that does not answer; default: 300',
  },
}
# The options of `distill`, which are arguments of `distilling.call.distill`.
DISTILL: dict[str, dict[str, Any]] = {
  'teacher': {
    'required': True,
    'help': 'work directory, WORKDIR:ROW, file of this library, NETWORK:FILE '
    'of PyTorch weights, hf:OWNER/NAME or a folder of Hugging Face, or name of '
    'a network, which is then trained; give it several times to join the '
    'vectors of several teachers',
    'action': 'append',
  },
  'student': {
    'type': _number_or_text,
    'default': 0.5,
    'help': "share of the teacher's width, or name of a network; default: 0.5",
  },
  'out': {'required': True, 'help': 'work directory for all results'},
  'method': {
    'default': 'auto',
    'help': 'name of a method; default: auto, which chooses one',
  },
  'no_baseline': {
    'dest': 'baseline',
    'action': 'store_false',
    'help': 'do not train the student on the labels alone as well',
  },
  'seeds': {
    'type': int,
    'default': 3,
    'help': 'number of times that each student is trained; default: 3',
  },
  'epochs': {
    'type': float,
    'help': 'passes over the training images; default: about 2,000 steps',
  },
  'batch_size': {
    'type': int,
    'help': 'number of images in a batch; default: 64, fewer for few images',
  },
  'image_size': {
    'type': int,
    'help': 'height and width of the images in pixels; default: the median of '
    'their shorter sides, at most 224',
  },
  'labels': {
    'default': 'auto',
    'help': 'auto, folders, none, or a file with an image and its class on '
    'each line; for Hugging Face, the column of labels; default: auto',
  },
  'teacher_epochs': {
    'type': float,
    'help': 'passes over the training images for a teacher that is trained '
    "first; default: the student's, or about 500 steps for a teacher that has "
    'learned other classes',
  },
  'cache_teacher': {
    'type': _views,
    'default': 'auto',
    'help': "compute the teacher's outputs once and store them, for this "
    'number of augmented versions of each training image; yes: for 8; no: the '
    'teacher runs in each step; auto: only if all versions are equal and this '
    'saves time; default: auto',
  },
  'cache_top_k': {
    'type': int,
    'help': "number of the teacher's largest scores that are stored; default: "
    'all',
  },
}
# Those of `predict`.
PREDICT: dict[str, dict[str, Any]] = {
  'predictions': {
    'metavar': 'FOLDER',
    'default': 'predictions',
    'help': 'folder for vectors, maps and objects; default: predictions',
  },
  'background': {
    'choices': ('white', 'black'),
    'help': 'colour behind transparent pixels; default: that of the data set '
    'that the student was trained on',
  },
  'annotations': {
    'metavar': 'FILE',
    'help': 'for a student that finds objects, a file of COCO that lists the '
    'images and categories; the objects are then written to '
    "coco_results.json, as COCO's evaluation server expects them",
  },
}
# What a command takes without a name.
ARGUMENTS: dict[str, dict[str, Any]] = {
  'config': {'help': 'Python file with the config'},
  'workdir': {'help': 'work directory of a run'},
  'data': {
    'help': 'folder of images, .npz or .parquet file, hf:NAME, or digits'
  },
  'model': {
    'help': 'work directory with exported students, a folder of them, or one '
    'of their files'
  },
  'image': {
    'nargs': '+',
    'help': 'image files, or folders, which stand for all images below them',
  },
  'kind': {'help': f'what to list: {", ".join(listing.KINDS)}'},
}
