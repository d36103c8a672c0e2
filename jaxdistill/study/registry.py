"""The functions that the names in a config stand for."""

from jaxdistill import (
  methods,
  networks,
  objectives,
  optimizers,
  pruning,
  tasks,
)
from jaxdistill.core.types import Augment, Dataset, Method, Network, Task
from jaxdistill.data.sources import (
  coco,
  depth_folder,
  digits,
  folder,
  huggingface,
  identities,
  image_trees,
  mask_folder,
  npz,
  scenes,
  tfds,
  tfds_boxes,
  tfds_maps,
)
from jaxdistill.data.transforms import augment, autoaugment, dense, mixing
from jaxdistill.methods.distpro import pathways
from jaxdistill.methods.masked_layer import layer_phases, mask_phases
from jaxdistill.methods.neighbourhood import candidates
from jaxdistill.networks import initial
from jaxdistill.networks.weights import backbones
from jaxdistill.objectives.types import Objective
from jaxdistill.optimizers import Optimizer, Schedule
from jaxdistill.study.nesting import Table, Tables
from jaxdistill.training import trackers

DATASETS: Table = {
  'digits': digits.digits,
  'npz': npz.npz,
  'tfds': tfds.tfds,
  'tfds_boxes': tfds_boxes.tfds_boxes,
  'tfds_maps': tfds_maps.tfds_maps,
  'folder': folder.folder,
  'depth_folder': depth_folder.depth_folder,
  'mask_folder': mask_folder.mask_folder,
  'identities': identities.identities,
  'coco': coco.coco,
  'images': image_trees.images,
  'huggingface': huggingface.huggingface,
  'scenes': scenes.scenes,
}
AUGMENTS: Table = {
  'none': augment.none,
  'crop_flip': augment.crop_flip,
  'imagenet': augment.imagenet,
  'scale_crop': dense.scale_crop,
  'regularized': mixing.regularized,
  'repeated': augment.repeated,
}
POLICIES: Table = {
  'autoaugment': autoaugment.autoaugment,
  'randaugment': autoaugment.randaugment,
}
CUTOUTS: Table = {'cutout': mixing.cutout}
MIXES: Table = {
  'cutmix': mixing.cutmix,
  'mixup': mixing.mixup,
  'alternate': mixing.alternate,
}
# The architectures, networks in files, and edits of networks.
NETWORKS: Table = {**networks.NETWORKS, **networks.FILES, **networks.EDITS}
INITIAL_WEIGHTS: Table = {
  'normal': initial.normal,
  'xavier_uniform': initial.xavier_uniform,
  'pretrained': backbones.pretrained,
}
TASKS: Table = {
  'classification': tasks.classification,
  'segmentation': tasks.segmentation,
  'depth': tasks.depth,
  'detection': tasks.detection,
  'two_stage_detection': tasks.two_stage_detection,
  'embedding': tasks.embedding,
  'imitation': tasks.imitation,
  'verification': tasks.verification,
}
OPTIMIZERS: Table = {
  'sgd': optimizers.sgd,
  'adamw': optimizers.adamw,
  'lars': optimizers.lars,
  # These wrap another optimizer, for pruning.
  'slim': pruning.slim,
  'sparse': pruning.sparse,
  'gradual': pruning.gradual,
}
PRUNINGS: Table = {
  'filters': pruning.filters,
  'slimming': pruning.slimming,
  'magnitude': pruning.magnitude,
}
SCHEDULES: Table = {
  'cosine': optimizers.cosine,
  'linear': optimizers.linear,
  'polynomial': optimizers.polynomial,
  'step': optimizers.step,
  'constant': optimizers.constant,
  'plateau': optimizers.plateau,
}
OBJECTIVES: Table = {
  'kd': objectives.kd,
  'tempered': objectives.tempered,
  'logits': objectives.logits,
  'refinery': objectives.refinery,
  'dkd': objectives.dkd,
  'dist': objectives.dist,
  'hint': objectives.hint,
  'at': objectives.at,
  'nst': objectives.nst,
  'fsp': objectives.fsp,
  'sp': objectives.sp,
  'cc': objectives.cc,
  'vid': objectives.vid,
  'rkd': objectives.rkd,
  'pkt': objectives.pkt,
  'ab': objectives.ab,
  'crd': objectives.crd,
  'ofd': objectives.ofd,
  'fd': objectives.fd,
  'reviewkd': objectives.reviewkd,
  'srrl': objectives.srrl,
  'pixel_kd': objectives.pixel_kd,
  'depth_kd': objectives.depth_kd,
  'cwd': objectives.cwd,
  'fgd': objectives.fgd,
  'ifv': objectives.ifv,
  'pairwise': objectives.pairwise,
  'embedding': objectives.embedding,
}
METHODS: Table = {name: getattr(methods, name) for name in methods.__all__}
SPACES: Table = {
  'all_pairs': pathways.all_pairs,
  'same_or_deeper': pathways.same_or_deeper,
}
CANDIDATES: Table = {
  'narrow': candidates.narrow,
  'sparsified': candidates.sparsified,
  'fields': candidates.fields,
  'block': candidates.block,
}
MASKS: Table = {'masks': mask_phases.Masks}
LAYERS: Table = {'layers': layer_phases.Layers}
TRACKERS: Table = {
  'wandb': trackers.wandb,
  'mlflow': trackers.mlflow,
  'trackio': trackers.trackio,
}
# Type -> what the names of a section mean where an annotation has this type.
TABLES: Tables = {
  Dataset: DATASETS,
  Augment: AUGMENTS,
  mixing.Policy: POLICIES,
  mixing.Cutout: CUTOUTS,
  mixing.Mix: MIXES,
  Network: NETWORKS,
  initial.Scheme: INITIAL_WEIGHTS,
  Task: TASKS,
  Optimizer: OPTIMIZERS,
  Schedule: SCHEDULES,
  pruning.Pruning: PRUNINGS,
  Objective: OBJECTIVES,
  Method: METHODS,
  pathways.Space: SPACES,
  candidates.Candidate: CANDIDATES,
  mask_phases.Masks: MASKS,
  layer_phases.Layers: LAYERS,
  trackers.Tracker: TRACKERS,
}
