"""L2T-ww: learns what to transfer, and where to, by meta-gradients.

Jang et al., Learning What and Where to Transfer, 2019,
https://arxiv.org/abs/1905.05901

  method.py: the method `l2t_ww`.
  matching.py: the weighted distance between features.
"""
