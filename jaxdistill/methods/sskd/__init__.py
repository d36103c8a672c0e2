"""SSKD: a backbone distilled stage by stage, then the head on the labels.

Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation, 2018,
https://arxiv.org/abs/1812.01819. The later method with the same short name
(Knowledge Distillation Meets Self-Supervision, 2020) is a different one.

  method.py: the methods `sskd`, `multi_loss` and `fixed_backbone`.
  matching.py: the phases that match features at the boundaries of stages.
"""

from jaxdistill.methods.sskd.method import fixed_backbone, multi_loss, sskd

__all__ = ['fixed_backbone', 'multi_loss', 'sskd']
