"""Neighbourhood Distillation and student search.

Shao et al., Neighbourhood Distillation: On the benefits of non end-to-end
distillation, 2020, https://arxiv.org/abs/2010.01189

  method.py: the methods `neighbourhood` and `from_teacher`.
  student_search.py: the method `student_search`.
  layouts.py: the division of a student and its teacher into neighbourhoods.
  plan.py: what neighbourhoods learn from, shared by all phases.
  forward.py: forward passes of single neighbourhoods, and their losses.
  piece_phases.py: the phases that compose students and train neighbourhoods.
  stacking.py: networks of different widths, padded to run as one.
  perturbation.py: how much error in its parts a network tolerates.
"""
