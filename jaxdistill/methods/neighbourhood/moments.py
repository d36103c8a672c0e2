"""Noise with the moments that the teacher's batch norms remember.

A batch norm with scale gamma and bias beta puts out features with mean beta and
standard deviation gamma, whatever it reads. Without any image, a teacher still
says in this way how its features are distributed.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.core import random
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Array, Features, Model
from jaxdistill.networks import graph
from jaxdistill.objectives import cuts


def noise_features(
  teacher: Model, image: Array, stop: str, rng: Array
) -> Features:
  """Draws the features of a teacher from the moments of its batch norms.

    relu(shortcut(noise of the stage before) + N(beta, gamma**2))

  beta and gamma are those of the last batch norm of each stage. A stage without
  a shortcut, such as the stem, has only the second summand.

  Args:
    teacher: the teacher, whose stages up to `stop` are convolutions and
      residual blocks that end with batch norm and ReLU.
    image: noise of the shape of images, `[B, H, W, C]`.
    stop: the last feature to draw.
    rng: the random key of the step.

  Returns:
    Feature -> noise `[B, H, W, C]`: 'image', and the outputs of all stages and
    groups up to `stop`.

  Raises:
    UsageError: a stage up to `stop` does not end with batch norm and ReLU.
  """
  network, variables = teacher
  features: Features = {'image': image}
  if stop == 'image':
    return features
  for i, name in enumerate(graph.stages_between(network, 'image', stop)):
    params = variables['params'].get(name, {})
    norm = _last_norm(name, params)
    silent = {k: jnp.zeros_like(v) for k, v in params[norm].items()}
    without_branch = graph.merge(
      variables, {'params': {name: {**params, norm: silent}}}
    )
    outputs, _ = graph.run(network, without_branch, features, only=(name,))
    shortcut = outputs.get(f'{name}.pre')
    if shortcut is None:
      raise _unsuitable(name)
    draw = jax.random.normal(random.step_key(rng, 'noise', i), shortcut.shape)
    scale, bias = (
      jnp.broadcast_to(params[norm][k], draw.shape) for k in ('scale', 'bias')
    )
    features = cuts.replace_output(
      network, outputs, name, jax.nn.relu(shortcut + scale * draw + bias)
    )
  return features


def _last_norm(stage: str, params: dict[str, Any]) -> str:
  """Returns the name of the last batch norm in the main branch of a stage."""
  norms = [
    name
    for name, values in params.items()
    if name.startswith('norm') and {*values} == {'scale', 'bias'}
  ]
  if not norms:
    raise _unsuitable(stage)
  return max(norms)


def _unsuitable(stage: str) -> UsageError:
  return UsageError(
    "inputs='moments': expected stages that end with batch norm and ReLU, got "
    f"the teacher's stage {stage!r}; use 'image' or 'gaussian' instead"
  )
