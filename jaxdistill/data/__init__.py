"""Data sets and augmentation, imported when they are first used.

Data sets: `digits`, `scenes`, `npz`, `tfds`, `tfds_boxes`, `tfds_maps`,
`folder`, `images`, `huggingface`, `mask_folder`, `depth_folder`, `coco`,
`identities`, `from_arrays`, `from_columns` and `from_identities` return a
`Dataset`, and `read_image` reads one image as they do.
Augmentations: all other names return a function (rng, batch) -> batch that runs
on the device. The names are those that configs use.
"""

from typing import TYPE_CHECKING

from jaxdistill.core import lazy

if TYPE_CHECKING:
  from jaxdistill.data.sources.arrays import from_arrays, from_columns
  from jaxdistill.data.sources.coco import coco
  from jaxdistill.data.sources.decoding import read_image
  from jaxdistill.data.sources.depth_folder import depth_folder
  from jaxdistill.data.sources.digits import digits
  from jaxdistill.data.sources.folder import folder
  from jaxdistill.data.sources.huggingface import huggingface
  from jaxdistill.data.sources.identities import from_identities, identities
  from jaxdistill.data.sources.image_trees import images
  from jaxdistill.data.sources.mask_folder import mask_folder
  from jaxdistill.data.sources.npz import npz
  from jaxdistill.data.sources.scenes import scenes
  from jaxdistill.data.sources.tfds import tfds
  from jaxdistill.data.sources.tfds_boxes import tfds_boxes
  from jaxdistill.data.sources.tfds_maps import tfds_maps
  from jaxdistill.data.transforms.augment import (
    chain,
    crop_flip,
    imagenet,
    none,
    repeated,
    standardize,
  )
  from jaxdistill.data.transforms.autoaugment import autoaugment, randaugment
  from jaxdistill.data.transforms.dense import scale_crop
  from jaxdistill.data.transforms.mixing import (
    alternate,
    cutmix,
    cutout,
    mixup,
    regularized,
  )

__all__ = [
  'alternate',
  'autoaugment',
  'chain',
  'coco',
  'crop_flip',
  'cutmix',
  'cutout',
  'depth_folder',
  'digits',
  'folder',
  'from_arrays',
  'from_columns',
  'from_identities',
  'huggingface',
  'identities',
  'imagenet',
  'images',
  'mask_folder',
  'mixup',
  'none',
  'npz',
  'randaugment',
  'read_image',
  'regularized',
  'repeated',
  'scale_crop',
  'scenes',
  'standardize',
  'tfds',
  'tfds_boxes',
  'tfds_maps',
]

# Name -> the module that defines it.
_HOMES = {
  'from_arrays': 'jaxdistill.data.sources.arrays',
  'from_columns': 'jaxdistill.data.sources.arrays',
  'coco': 'jaxdistill.data.sources.coco',
  'depth_folder': 'jaxdistill.data.sources.depth_folder',
  'digits': 'jaxdistill.data.sources.digits',
  'folder': 'jaxdistill.data.sources.folder',
  'from_identities': 'jaxdistill.data.sources.identities',
  'identities': 'jaxdistill.data.sources.identities',
  'mask_folder': 'jaxdistill.data.sources.mask_folder',
  'huggingface': 'jaxdistill.data.sources.huggingface',
  'images': 'jaxdistill.data.sources.image_trees',
  'npz': 'jaxdistill.data.sources.npz',
  'read_image': 'jaxdistill.data.sources.decoding',
  'scenes': 'jaxdistill.data.sources.scenes',
  'tfds': 'jaxdistill.data.sources.tfds',
  'tfds_boxes': 'jaxdistill.data.sources.tfds_boxes',
  'tfds_maps': 'jaxdistill.data.sources.tfds_maps',
  'scale_crop': 'jaxdistill.data.transforms.dense',
  **dict.fromkeys(
    ('chain', 'crop_flip', 'imagenet', 'none', 'repeated', 'standardize'),
    'jaxdistill.data.transforms.augment',
  ),
  **dict.fromkeys(
    ('autoaugment', 'randaugment'), 'jaxdistill.data.transforms.autoaugment'
  ),
  **dict.fromkeys(
    ('alternate', 'cutmix', 'cutout', 'mixup', 'regularized'),
    'jaxdistill.data.transforms.mixing',
  ),
}


if not TYPE_CHECKING:  # else type checkers would accept every name
  __getattr__, __dir__ = lazy.attributes(__name__, __all__, _HOMES)
