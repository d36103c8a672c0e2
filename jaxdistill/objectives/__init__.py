'''Objectives: the distillation terms of a student's loss, one per method.

A **pair** is a student and a teacher, together with the shapes of their
features and the recipe of the training. A **term** is one summand of the
student's loss: a function of the features of both networks, its weight, and its
adapters. An **adapter** is a small trained stage between the two networks, such
as a convolution that gives the student's feature the shape of the teacher's; it
is dropped after the training. An **objective** is a function that builds the
term for a pair. It is called once, when both networks are known, so it can
choose features and sizes.

Every name in a config calls a function of this package with that name; its
arguments are the settings in the config. The function returns an objective::

  >>> from jaxdistill import objectives
  >>> objective = objectives.at(weight=500.0)

Your own objective is a function of a `Pair` that returns a `Term`. This one
moves the mean of the student's output towards the teacher's::

  import jax.numpy as jnp
  import jaxdistill as jd


  def same_mean(*, weight: float = 1.0) -> jd.Objective:
    """Squared difference between the means of both outputs."""

    def objective(pair: jd.Pair) -> jd.Term:
      del pair  # both networks have an output called 'head'

      def loss(features, batch, models):
        del batch, models
        student = jnp.mean(features['student/head'], axis=-1)
        teacher = jnp.mean(features['teacher/head'], axis=-1)
        return (student - teacher) ** 2

      return jd.Term(loss, weight)

    return objective

A config uses it as `{'name': 'my_file:same_mean', 'weight': 2.0}`. An objective
that trains an adapter lists it in the term::

  adapter = jd.Stage('regressor', module, inputs=('student/group2',))
  return jd.Term(loss, weight, adapters=(adapter,))

The loss then finds the adapter's output as `features['regressor']`.

An objective that never takes the teacher's outputs for scores of the data's
classes says so with a mark, and then the teacher may have other classes::

  @jd.objectives.any_classes
  def objective(pair: jd.Pair) -> jd.Term:
    ...
'''

from jaxdistill.core.marks import any_classes
from jaxdistill.objectives.dense_terms import cwd, ifv, pairwise
from jaxdistill.objectives.detection_terms import fgd
from jaxdistill.objectives.embedding_terms import embedding
from jaxdistill.objectives.feature_terms import (
  at,
  fd,
  ft,
  hint,
  hint_pair,
  nst,
  reviewkd,
  srrl,
  vid,
)
from jaxdistill.objectives.logit_terms import (
  depth_kd,
  dist,
  dkd,
  kd,
  logits,
  pixel_kd,
  refinery,
  tempered,
)
from jaxdistill.objectives.pairs import middle_pairs
from jaxdistill.objectives.pre_activation_terms import ab, ofd
from jaxdistill.objectives.relation_terms import cc, crd, fsp, pkt, rkd, sp
from jaxdistill.objectives.types import (
  Objective,
  Pair,
  Term,
  TermLoss,
  adapter_inputs,
  pair_of,
)

__all__ = [
  'Objective',
  'Pair',
  'Term',
  'TermLoss',
  'ab',
  'adapter_inputs',
  'any_classes',
  'at',
  'cc',
  'crd',
  'cwd',
  'depth_kd',
  'dist',
  'dkd',
  'embedding',
  'fd',
  'fgd',
  'fsp',
  'ft',
  'hint',
  'hint_pair',
  'ifv',
  'kd',
  'logits',
  'middle_pairs',
  'nst',
  'ofd',
  'pair_of',
  'pairwise',
  'pixel_kd',
  'pkt',
  'refinery',
  'reviewkd',
  'rkd',
  'sp',
  'srrl',
  'tempered',
  'vid',
]
