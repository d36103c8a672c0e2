"""DistPro: searches a distillation process, then trains with it.

Deng et al., DistPro: Searching A Fast Knowledge Distillation Process via Meta
Optimization, 2022, https://arxiv.org/abs/2204.05547

  method.py: the methods `distpro`, `distpro_search` and `distpro_retrain`.
  pathways.py: which features are compared, and the loss of each pathway.
  transforms.py: the modules between a student's and a teacher's feature.
  process.py: weights of pathways over time, their normalisation, and files.
  forward.py: the forward pass that both phases share.
  search_phase.py: the phase that trains a student and learns the weights.
  process_phases.py: the phases that find a process, and that train with one.
  figures.py: pictures of a process.
"""
