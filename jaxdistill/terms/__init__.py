"""Summands of a joint loss: a loss, the features it pairs, its helpers."""

from jaxdistill.terms.feature_terms import (
  attention,
  boundaries,
  factor,
  hint,
  hint_cut,
  normalized,
  overhaul,
  review,
  selectivity,
  softmax_regression,
  variational,
)
from jaxdistill.terms.logit_terms import (
  correlation,
  decoupled,
  logits,
  refinery,
  soft_target,
)
from jaxdistill.terms.pairs import (
  Pair,
  Term,
  TermFactory,
  inputs,
  middle_cut,
  pair_of,
)
from jaxdistill.terms.relation_terms import (
  congruence,
  contrastive,
  flow,
  probabilistic,
  relational,
  similarity,
)

__all__ = [
  'Pair',
  'Term',
  'TermFactory',
  'attention',
  'boundaries',
  'congruence',
  'contrastive',
  'correlation',
  'decoupled',
  'factor',
  'flow',
  'hint',
  'hint_cut',
  'inputs',
  'logits',
  'middle_cut',
  'normalized',
  'overhaul',
  'pair_of',
  'probabilistic',
  'refinery',
  'relational',
  'review',
  'selectivity',
  'similarity',
  'soft_target',
  'softmax_regression',
  'variational',
]
