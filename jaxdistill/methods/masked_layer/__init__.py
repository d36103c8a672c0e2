"""Masked Layer Distillation: masks, then groups of stages, then the whole.

Wan et al., Masked Layer Distillation: Fast and Robust Training Through
Knowledge Transfer Normalization, 2021,
https://www2.eecs.berkeley.edu/Pubs/TechRpts/2021/EECS-2021-243.html

  method.py: the method `masked_layer`.
  parts.py: both networks, divided into groups by breakpoints.
  noise.py: the teacher under the student's noise, and the masks.
  mask_phases.py: how masks are learned, with a given alpha.
  mask_search.py: the search for alpha.
  layer_phases.py: how the groups of stages are trained.
  figures.py: pictures of the masks.
"""
