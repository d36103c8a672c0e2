"""Orthogonality: distillation combined with pruning and regularisation.

Park et al., On the Orthogonality of Knowledge Distillation with Other
Techniques: From an Ensemble Perspective, 2020, https://arxiv.org/abs/2009.04120

  pruning_study.py: the methods `pruning_protocol` and `pruned`.
  regularization_study.py: the method `regularization_protocol`.
  distillation.py: the two kinds of distillation that both studies use.
"""
