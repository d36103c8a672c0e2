"""Deep mutual learning: two students teach each other.

Zhang et al., Deep Mutual Learning, 2017, https://arxiv.org/abs/1706.00384
"""

import jax

from jaxdistill import losses, steps
from jaxdistill.methods import joint
from jaxdistill.networks import staged
from jaxdistill.types import Carry, Method, Model, Phase, Recipe


def mutual(
  recipe: Recipe,
  *,
  weight: float = 1.0,
  student: str = 'student',
  peer: str = 'peer',
) -> Method:
  """DML: each learns from labels and from the other's classes.

    loss(labels) + weight * KL(other || own), for both

  Both are updated at once from the same predictions; the paper updates them in
  turn.

  Args:
    recipe: how.
    weight: factor on the divergence.
    student: the role that is reported.
    peer: the other role; where the carry lacks it, a student of another
      initialisation.
  """

  def new(rng, carry: Carry) -> dict[str, Model]:
    network = joint.model_in(carry, student).network
    image = {'image': recipe.example['image']}
    made = Model(network, staged.init(network, rng, image))
    return {peer: carry.get(peer, made)}

  def phase(carry: Carry) -> Phase:
    roles = {student: peer, peer: student}
    networks = {role: carry[role].network for role in roles}
    joint.check_answers(networks[student], networks[peer], recipe)

    def loss_fn(variables, batches, rng, progress):
      del progress
      batch = batches['train']
      answers, updates = {}, {}
      for i, (role, network) in enumerate(networks.items()):
        features, updates[role] = staged.run(
          network,
          variables[role],
          {'image': batch['image']},
          train=True,
          rngs={'dropout': jax.random.fold_in(rng, i)},
        )
        answers[role] = features[staged.output(network)]
      total = sum(
        recipe.task.loss(answers[own], batch).mean()
        + weight
        * losses.soft_target_loss(
          answers[own], answers[other], temperature=1.0
        ).mean()
        for own, other in roles.items()
      )
      score = joint.score(recipe, answers[student], batch)
      return total, (updates, score)

    made = steps.gradient_phase(
      'mutual',
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks=networks,
      trainable={role: None for role in roles},
    )
    return made._replace(views={student: made.views[student]})

  return (lambda carry: steps.setup_phase('new_peer', new), phase)
