"""What the names in a config mean: literal tables, name -> function."""

from jaxdistill import optimizers, terms
from jaxdistill.data import (
  augment,
  autoaugment,
  digits,
  folder,
  mixing,
  npz,
  tfds,
)
from jaxdistill.methods import (
  chains,
  data_free,
  distpro,
  joint,
  l2t_ww,
  masked_layer,
  mutual,
  neighbourhood,
  orthogonality,
  snapshots,
  sskd,
  student_search,
  two_stage,
)
from jaxdistill.networks import NETWORKS, edits, initial
from jaxdistill.pruning import filters, slimming, weights
from jaxdistill.sections import Table
from jaxdistill.tasks import classification
from jaxdistill.terms import pathways

DATASETS: Table = {
  'digits': digits.digits,
  'npz': npz.npz,
  'tfds': tfds.tfds,
  'folder': folder.folder,
}
AUGMENTS: Table = {
  'none': augment.none,
  'crop_flip': augment.crop_flip,
  'imagenet': augment.imagenet,
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
# Networks of images, and edits of them.
MODELS: Table = {**NETWORKS, 'without': edits.delete}
INITIAL: Table = {
  'normal': initial.normal,
  'xavier_uniform': initial.xavier_uniform,
}
TASKS: Table = {'classification': classification.classification}
OPTIMIZERS: Table = {
  'sgd': optimizers.sgd,
  'adamw': optimizers.adamw,
  'lars': optimizers.lars,
  # Around another, for pruning.
  'slim': slimming.slim,
  'sparse': weights.sparse,
  'gradual': weights.gradual,
}
PRUNINGS: Table = {
  'filters': filters.filters,
  'slimming': slimming.slimming,
  'magnitude': weights.magnitude,
}
SCHEDULES: Table = {
  'cosine': optimizers.cosine,
  'linear': optimizers.linear,
  'step': optimizers.step,
  'constant': optimizers.constant,
  'plateau': optimizers.plateau,
}
TERMS: Table = {
  'kd': terms.soft_target,
  'tempered': terms.tempered,
  'logits': terms.logits,
  'refinery': terms.refinery,
  'dkd': terms.decoupled,
  'dist': terms.correlation,
  'hint': terms.hint,
  'at': terms.attention,
  'nst': terms.selectivity,
  'fsp': terms.flow,
  'sp': terms.similarity,
  'cc': terms.congruence,
  'vid': terms.variational,
  'rkd': terms.relational,
  'pkt': terms.probabilistic,
  'ab': terms.boundaries,
  'crd': terms.contrastive,
  'ofd': terms.overhaul,
  'fd': terms.normalized,
  'reviewkd': terms.review,
  'srrl': terms.softmax_regression,
}
METHODS: Table = {
  'supervised': joint.supervised,
  'joint': joint.joint,
  # A term beside the labels, with its published weight ...
  **{name: joint.single(name, term) for name, term in TERMS.items()},
  'kd': joint.kd,
  'refinery': joint.single('refinery', terms.refinery, label_weight=0.0),
  # ... or before them, and methods with other teachers.
  'fitnets': two_stage.fitnets,
  'fsp': two_stage.flow_of_solution,
  'ab': two_stage.activation_boundaries,
  'ft': two_stage.factor_transfer,
  'dml': mutual.mutual,
  'ban': chains.born_again,
  'takd': chains.assistants,
  # Stage by stage, and what the paper compares it with.
  'sskd': sskd.sskd,
  'multi_loss': sskd.multi_loss,
  'fixed_backbone': sskd.fixed_backbone,
  # Groups of stages one by one, then any method.
  'masked_layer': masked_layer.masked_layer,
  # Piece by piece, all at once.
  'neighbourhood': neighbourhood.neighbourhood,
  'from_teacher': neighbourhood.from_teacher,
  'student_search': student_search.student_search,
  # Without data.
  'gaussian_kd': data_free.gaussian_kd,
  'zero_shot': data_free.zero_shot,
  # With pruning in between.
  'pruned': orthogonality.pruned,
  'pruning_protocol': orthogonality.pruning_protocol,
  'snapshots': snapshots.snapshots,
  # A process of weights, searched and replayed.
  'distpro': distpro.distpro,
  'distpro_search': distpro.search,
  'distpro_retrain': distpro.retrain,
  # Weights that are functions of the image.
  'l2t_ww': l2t_ww.l2t_ww,
}
SPACES: Table = {
  'all_pairs': pathways.all_pairs,
  'same_or_deeper': pathways.same_or_deeper,
}
# Key -> what the names of a section under that key mean.
TABLES: dict[str, Table] = {
  'data': DATASETS,
  'augment': AUGMENTS,
  'policy': POLICIES,
  'cutout': CUTOUTS,
  'mix': MIXES,
  'pruning': PRUNINGS,
  'prunings': PRUNINGS,
  'task': TASKS,
  'optimizer': OPTIMIZERS,
  'schedule': SCHEDULES,
  'student': MODELS,
  'teacher': MODELS,
  'network': MODELS,
  'initial': INITIAL,
  'method': METHODS,
  'terms': TERMS,
  'assistants': MODELS,
  'stage_optimizer': OPTIMIZERS,
  'head_optimizer': OPTIMIZERS,
  'neighbourhood_optimizer': OPTIMIZERS,
  'fine_tune': METHODS,
  'fine_tune_optimizer': OPTIMIZERS,
  'search_optimizer': OPTIMIZERS,
  'weights_optimizer': OPTIMIZERS,
  'space': SPACES,
  'mask_optimizer': OPTIMIZERS,
  'local_optimizer': OPTIMIZERS,
  'label_optimizer': OPTIMIZERS,
}
