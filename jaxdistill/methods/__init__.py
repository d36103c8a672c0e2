"""Every method: a function from a recipe to the phases that train a student.

A method is called like `methods.kd(recipe, temperature=4.0)` and returns a
tuple of phases, which `jaxdistill.fit` runs. Methods are joined with `+`, for
example `methods.supervised(recipe, student='teacher') + methods.kd(recipe)`.

Each file or folder of this package holds one paper or one family of methods:

  single_term.py: methods that add one objective to the loss of the labels.
  two_stage.py: FitNets, AB, FSP and FT, which prepare the student first.
  mutual.py: deep mutual learning.
  chains.py: born-again networks, and teacher assistants.
  data_free.py: distillation on noise, and zero-shot distillation.
  head_first.py: LP-FT, fine-tuning that begins with the head.
  supervised_vectors.py: the baseline of `embedding`, which learns labels.
  snapshots.py: any method, with copies of the student along the way.
  orthogonality/: distillation combined with pruning and regularisation.
  sskd/: stage-by-stage distillation, and its rivals.
  neighbourhood/: Neighbourhood Distillation and student search.
  masked_layer/: Masked Layer Distillation.
  distpro/: DistPro, which searches a distillation process.
  l2t_ww/: L2T-ww, which learns what and where to transfer.

`methods.sskd` and `methods.distpro` are functions, not the folders of the same
name; use `from jaxdistill.methods.distpro import ...` to import from these.
"""

from jaxdistill.methods.chains import ban, takd
from jaxdistill.methods.data_free import gaussian_kd, zero_shot
from jaxdistill.methods.distpro.method import (
  distpro,
  distpro_retrain,
  distpro_search,
)
from jaxdistill.methods.head_first import head_first
from jaxdistill.methods.l2t_ww.method import l2t_ww
from jaxdistill.methods.masked_layer.method import masked_layer
from jaxdistill.methods.mutual import dml
from jaxdistill.methods.neighbourhood.method import from_teacher, neighbourhood
from jaxdistill.methods.neighbourhood.student_search import student_search
from jaxdistill.methods.orthogonality.pruning_study import (
  pruned,
  pruning_protocol,
)
from jaxdistill.methods.orthogonality.regularization_study import (
  regularization_protocol,
)
from jaxdistill.methods.single_term import (
  at,
  cc,
  crd,
  cwd,
  depth_kd,
  dist,
  dkd,
  embedding,
  fd,
  fgd,
  hint,
  ifv,
  kd,
  logits,
  nst,
  ofd,
  pairwise,
  pixel_kd,
  pkt,
  refinery,
  reviewkd,
  rkd,
  sp,
  srrl,
  tempered,
  vid,
)
from jaxdistill.methods.snapshots import snapshots
from jaxdistill.methods.sskd import fixed_backbone, multi_loss, sskd
from jaxdistill.methods.supervised_vectors import supervised_vectors
from jaxdistill.methods.two_stage import ab, fitnets, fsp, ft
from jaxdistill.phases.joint import joint, supervised

__all__ = [
  'ab',
  'at',
  'ban',
  'cc',
  'crd',
  'cwd',
  'depth_kd',
  'dist',
  'distpro',
  'distpro_retrain',
  'distpro_search',
  'dkd',
  'dml',
  'embedding',
  'fd',
  'fgd',
  'fitnets',
  'fixed_backbone',
  'from_teacher',
  'fsp',
  'ft',
  'gaussian_kd',
  'head_first',
  'hint',
  'ifv',
  'joint',
  'kd',
  'l2t_ww',
  'logits',
  'masked_layer',
  'multi_loss',
  'neighbourhood',
  'nst',
  'ofd',
  'pairwise',
  'pixel_kd',
  'pkt',
  'pruned',
  'pruning_protocol',
  'refinery',
  'regularization_protocol',
  'reviewkd',
  'rkd',
  'snapshots',
  'sp',
  'srrl',
  'sskd',
  'student_search',
  'supervised',
  'supervised_vectors',
  'takd',
  'tempered',
  'vid',
  'zero_shot',
]
