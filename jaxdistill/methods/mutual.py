"""Deep mutual learning: two students teach each other.

Zhang et al., Deep Mutual Learning, 2017, https://arxiv.org/abs/1706.00384
"""

from jaxdistill import losses, phases
from jaxdistill.core import checks, random
from jaxdistill.core.types import Carry, Method, Model, Phase, Recipe
from jaxdistill.networks import graph
from jaxdistill.tasks import requirements


def dml(
  recipe: Recipe,
  *,
  weight: float = 1.0,
  student: str = 'student',
  peer: str = 'peer',
) -> Method:
  """DML: two students learn from the labels and from each other's predictions.

    loss(labels) + weight * KL(other || student), for both students

  No trained teacher is needed. Both students train in one phase of the recipe's
  length, so that a step costs about twice as much as ordinary training. They
  are updated at the same time from the same predictions, whereas the paper
  updates them in turn.

  Args:
    recipe: how both students are trained.
    weight: the factor on the divergence; 1 in the paper.
    student: the role of the student that is evaluated.
    peer: the role of the other student. If the carry holds no such model, it is
      a copy of the student's network with other initial weights.

  Raises:
    UsageError: the outputs of the task are not scores of classes; when the
      phase begins: the outputs of the two networks differ in shape.
  """
  checks.weights(weight=weight)
  requirements.class_scores('dml', recipe.task)
  requirements.label_loss('dml', recipe.task)

  def new_peer(rng, carry: Carry) -> dict[str, Model]:
    network = phases.model_in(carry, student).network
    image = {'image': recipe.example['image']}
    model = Model(network, graph.init(network, rng, image))
    return {peer: carry.get(peer, model)}

  def phase(carry: Carry) -> Phase:
    teacher_of = {student: peer, peer: student}
    networks = {role: carry[role].network for role in teacher_of}
    phases.check_outputs(networks[student], networks[peer], recipe)

    def loss_fn(variables, batches, rng, progress):
      del progress
      batch = batches['train']
      outputs, logits, updates = {}, {}, {}
      for i, (role, network) in enumerate(networks.items()):
        features, updates[role] = graph.run(
          network,
          variables[role],
          {'image': batch['image']},
          train=True,
          rngs={'dropout': random.step_key(rng, 'dropout', i)},
        )
        outputs[role] = graph.output(network, features)
        logits[role] = features[graph.main_output(network)]
      total = sum(
        recipe.task.loss(outputs[role], batch).mean()
        + weight
        * losses.soft_target_loss(
          logits[role], logits[other], temperature=1.0
        ).mean()
        for role, other in teacher_of.items()
      )
      metrics = recipe.task.progress(outputs[student], batch)
      return total, (updates, metrics)

    mutual = phases.gradient_phase(
      'mutual',
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks=networks,
      trainable={role: None for role in teacher_of},
    )
    return mutual._replace(eval_models={student: mutual.eval_models[student]})

  return (lambda carry: phases.setup_phase('new_peer', new_peer), phase)
