"""Losses: functions of arrays that hold no parameters and know no networks.

The student's argument comes before the teacher's, and no gradient flows to the
teacher unless a docstring says otherwise. A loss that is a sum over examples
returns one value per example, `[B]`; a loss that compares examples with each
other returns a scalar. No loss is multiplied by a weight: that is up to the
caller. Inputs of fewer bits than float32 are converted to float32 first.
"""

from jaxdistill.losses.attention import (
  attention_transfer_loss,
  factor_transfer_loss,
  neuron_selectivity_loss,
)
from jaxdistill.losses.boundaries import (
  activation_boundary_loss,
  batch_norm_margins,
  margin_relu_loss,
)
from jaxdistill.losses.contrastive import (
  MemoryBank,
  NegativeTable,
  contrastive_loss,
  init_memory_bank,
  memory_contrastive_loss,
  negative_table,
  sample_negatives,
)
from jaxdistill.losses.dense import (
  channel_wise_loss,
  intra_class_variation_loss,
  map_absolute_error,
  pairwise_similarity_loss,
  pixel_soft_target_loss,
)
from jaxdistill.losses.detection import (
  box_overlaps,
  focal_loss,
  generalized_iou_loss,
)
from jaxdistill.losses.embeddings import cosine_loss, smooth_l1_loss
from jaxdistill.losses.features import (
  hierarchical_context_loss,
  hint_loss,
  masked_l1_loss,
  normalized_l1_loss,
  softmax_regression_loss,
  squared_distance,
  variational_information_loss,
)
from jaxdistill.losses.focal_global import focal_distillation_loss
from jaxdistill.losses.logits import (
  decoupled_kd_loss,
  dist_loss,
  logit_squared_error,
  refinery_loss,
  soft_target_loss,
  tempered_cross_entropy,
)
from jaxdistill.losses.margins import arcface_loss, cosface_loss
from jaxdistill.losses.relations import (
  correlation_congruence_loss,
  flow_loss,
  probabilistic_transfer_loss,
  relational_angle_loss,
  relational_distance_loss,
  similarity_preserving_loss,
)

__all__ = [
  'MemoryBank',
  'NegativeTable',
  'activation_boundary_loss',
  'arcface_loss',
  'attention_transfer_loss',
  'batch_norm_margins',
  'box_overlaps',
  'channel_wise_loss',
  'contrastive_loss',
  'correlation_congruence_loss',
  'cosface_loss',
  'cosine_loss',
  'decoupled_kd_loss',
  'dist_loss',
  'factor_transfer_loss',
  'flow_loss',
  'focal_distillation_loss',
  'focal_loss',
  'generalized_iou_loss',
  'hierarchical_context_loss',
  'hint_loss',
  'init_memory_bank',
  'intra_class_variation_loss',
  'logit_squared_error',
  'map_absolute_error',
  'margin_relu_loss',
  'masked_l1_loss',
  'memory_contrastive_loss',
  'negative_table',
  'neuron_selectivity_loss',
  'normalized_l1_loss',
  'pairwise_similarity_loss',
  'pixel_soft_target_loss',
  'probabilistic_transfer_loss',
  'refinery_loss',
  'relational_angle_loss',
  'relational_distance_loss',
  'sample_negatives',
  'similarity_preserving_loss',
  'smooth_l1_loss',
  'soft_target_loss',
  'softmax_regression_loss',
  'squared_distance',
  'tempered_cross_entropy',
  'variational_information_loss',
]
