"""Networks whose last layer reads a vector that describes the image."""

from flax import linen as nn

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Network, Stage
from jaxdistill.networks import graph, layers

HEAD, EMBEDDING, SCALE = 'head', 'embedding', 'head.scale'


def embedded(
  network: Network, *, size: int = 256, scale: float | None = None
) -> Network:
  """Returns a classifier with a stage 'embedding' before its last layer.

  The stage is a linear map of what the last layer reads, usually the pooled
  map. The network has the outputs 'head', the logits, and 'embedding'. The task
  `verification` uses the logits in training and the embedding afterwards.

  Args:
    network: the classifier.
    size: the length of the embedding.
    scale: None: the last layer is linear. A number: each logit is this number
      times the cosine of the embedding and the weights of the class, as the
      losses 'cosface' and 'arcface' of `verification` require; the papers use
      64. The output 'head.scale' is this number.

  Raises:
    UsageError: the network does not end with a classifier, or a number is out
      of its range.

  References:
    - Wang et al., NormFace: L2 Hypersphere Embedding for Face Verification,
      2017, https://arxiv.org/abs/1704.06369, for the scaled cosines
  """
  checks.integer('size', size)
  last = network.stages[-1]
  if not isinstance(last.module, layers.CLASSIFIERS) or len(network.stages) < 2:
    raise UsageError(
      'network: expected a classifier whose last layer reads a vector, got '
      f'{", ".join(graph.stage_names(network))}'
    )
  head: nn.Module = last.module
  outputs: tuple[str, ...] = (HEAD, EMBEDDING)
  if scale is not None:
    checks.number('scale', scale, above=0)
    head = layers.CosineClassifier(last.module.num_classes, float(scale))
    outputs += (SCALE,)
  stages = (
    *network.stages[:-1],
    Stage(EMBEDDING, layers.Hidden(size, activation=''), last.inputs),
    Stage(HEAD, head),
  )
  return Network(stages, outputs)
