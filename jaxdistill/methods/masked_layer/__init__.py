"""Masked Layer Distillation: masks, then groups of stages, then the whole.

Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021,
https://www2.eecs.berkeley.edu/Pubs/TechRpts/2021/EECS-2021-243.html

  method.py: the method `masked_layer`.
  layer_phases.py: the phases that learn the masks and the groups of stages.
  noise.py: the teacher under the student's noise, and the masks.
  figures.py: pictures of the masks.
"""
