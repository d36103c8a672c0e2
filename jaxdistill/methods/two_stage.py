"""Methods that train part of the student on features first, then all of it.

The published schedules add 30 epochs at a constant learning rate before 240
epochs. Here the two phases share the recipe's epochs, and each runs the whole
schedule of the recipe, so that all methods are compared at the same cost.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxdistill import losses, objectives, phases
from jaxdistill.core import checks, marks
from jaxdistill.core.types import (
  Carry,
  FeaturePairs,
  Method,
  Model,
  Network,
  Phase,
  Recipe,
  Stage,
)
from jaxdistill.networks import graph
from jaxdistill.objectives import adapters, maps, pairs
from jaxdistill.phases import joint


def fitnets(
  recipe: Recipe,
  *,
  first: float = 1 / 9,
  hint_weight: float = 100.0,
  weight: float = 0.9,
  temperature: float = 4.0,
  label_weight: float = 0.1,
  feature_pairs: FeaturePairs | None = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """FitNets: trains the stages up to a hint layer, then all stages by KD.

  The student first learns to reproduce one feature of the teacher (the hint)
  through an adapter. Then the whole student learns from labels and soft
  targets. The paper lowers the weight of the soft targets over time; here it is
  constant.

  Romero et al., FitNets: Hints for Thin Deep Nets, 2014,
  https://arxiv.org/abs/1412.6550

  Args:
    recipe: how the student is trained; the phases share its epochs.
    first: the fraction of the epochs that is spent on the hint.
    hint_weight: the factor on the hint's loss.
    weight: the factor on the soft targets.
    temperature: the temperature of the soft targets.
    label_weight: the factor on the loss of the labels.
    feature_pairs: the hint: a pair (student feature, teacher feature), or
      several pairs, of which the last is the deepest; None means the second
      group of maps.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.
  """
  checks.weights(
    hint_weight=hint_weight, weight=weight, label_weight=label_weight
  )
  roles = {'student': student, 'teacher': teacher}
  hint = objectives.hint(weight=hint_weight, feature_pairs=feature_pairs)
  soft_targets = objectives.kd(weight=weight, temperature=temperature)

  def up_to_hint(pair: objectives.Pair) -> Sequence[str]:
    # The second phase needs it, and would find out only after the first.
    phases.check_outputs(pair.student, pair.teacher, recipe)
    return pairs.stages_up_to(
      pair.student,
      pair.student_shapes,
      objectives.hint_pair(pair, feature_pairs)[0],
    )

  return _first_phase(
    recipe, first, 'hint', hint, up_to_hint, roles
  ) + joint.joint(
    _remaining(recipe, first),
    terms={'kd': soft_targets},
    label_weight=label_weight,
    name='fitnets',
    student=student,
    teacher=teacher,
  )


def ab(
  recipe: Recipe,
  *,
  first: float = 1 / 9,
  boundary_weight: float = 3e-3,
  margin: float = 1.0,
  feature_pairs: FeaturePairs | None = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """AB: learns the signs of the teacher's features first, then the labels.

  The first phase matches on which side of zero the features before each
  activation lie. The second phase trains on the labels only, as in
  RepDistiller; the authors add soft targets there.

  Heo et al., Knowledge Transfer via Distillation of Activation Boundaries
  Formed by Hidden Neurons, 2018, https://arxiv.org/abs/1811.03233

  Args:
    recipe: how the student is trained; the phases share its epochs.
    first: the fraction of the epochs that is spent on the boundaries.
    boundary_weight: the factor on the loss of the boundaries.
    margin: see `losses.activation_boundary_loss`.
    feature_pairs: pairs (student feature, teacher feature) before their
      activation; None means those of all groups of maps.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.
  """
  checks.weights(boundary_weight=boundary_weight)
  roles = {'student': student, 'teacher': teacher}
  term = objectives.ab(
    weight=boundary_weight, margin=margin, feature_pairs=feature_pairs
  )

  def trunk(pair: objectives.Pair) -> Sequence[str]:
    deepest, _ = objectives.middle_pairs(pair, feature_pairs, pre=True)[-1]
    return pairs.stages_up_to(pair.student, pair.student_shapes, deepest)

  return _first_phase(recipe, first, 'boundaries', term, trunk, roles) + (
    joint.supervised(_remaining(recipe, first), student=student)
  )


def fsp(
  recipe: Recipe,
  *,
  first: float = 1 / 9,
  flow_weight: float = 1.0,
  feature_pairs: FeaturePairs | None = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """FSP: learns how the teacher's layers relate first, then the labels.

  The first phase matches matrices of inner products between the channels of
  successive layers. The second phase trains on the labels only.

  Yim et al., A Gift from Knowledge Distillation: Fast Optimization, Network
  Minimization and Transfer Learning, 2017,
  https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html

  Args:
    recipe: how the student is trained; the phases share its epochs.
    first: the fraction of the epochs that is spent on the relations.
    flow_weight: the factor on the loss of the relations.
    feature_pairs: pairs (student feature, teacher feature), in order and with
      equal numbers of channels; None means those of all groups of maps.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.
  """
  checks.weights(flow_weight=flow_weight)
  roles = {'student': student, 'teacher': teacher}
  term = objectives.fsp(weight=flow_weight, feature_pairs=feature_pairs)

  def trunk(pair: objectives.Pair) -> Sequence[str]:
    deepest, _ = objectives.middle_pairs(pair, feature_pairs)[-1]
    return pairs.stages_up_to(pair.student, pair.student_shapes, deepest)

  return _first_phase(recipe, first, 'flow', term, trunk, roles) + (
    joint.supervised(_remaining(recipe, first), student=student)
  )


def ft(
  recipe: Recipe,
  *,
  first: float = 1 / 9,
  weight: float = 200.0,
  attention: bool = True,
  label_weight: float = 1.0,
  feature_pairs: FeaturePairs | None = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """FT: compresses the teacher's last map, then teaches the compressed factors.

  In the first phase an autoencoder, the paraphraser, learns to reconstruct the
  teacher's last map. In the second phase the student learns the labels and,
  through an adapter, the paraphraser's factors. Unlike RepDistiller's, the
  paraphraser has batch norm, which lets it train at the recipe's learning rate
  instead of a constant 0.01.

  Kim et al., Paraphrasing Complex Network: Network Compression via Factor
  Transfer, 2018, https://arxiv.org/abs/1802.04977

  Args:
    recipe: how both are trained; the phases share its epochs.
    first: the fraction of the epochs that is spent on the paraphraser.
    weight: the factor on the loss of the factors.
    attention: see `losses.factor_transfer_loss`.
    label_weight: the factor on the loss of the labels.
    feature_pairs: one pair (student feature, teacher feature); None means the
      last maps of both.
    student: the role of the network that trains.
    teacher: the role of the network that it learns from.
  """
  checks.weights(weight=weight, label_weight=label_weight)
  return (
    *_paraphraser(recipe, first, feature_pairs, student, teacher),
    *joint.joint(
      _remaining(recipe, first),
      terms={
        'ft': objectives.ft(
          weight=weight, attention=attention, feature_pairs=feature_pairs
        )
      },
      label_weight=label_weight,
      student=student,
      teacher=teacher,
      constant=('paraphraser',),
      name='ft',
    ),
  )


def _first_phase(
  recipe: Recipe,
  fraction: float,
  name: str,
  term: objectives.Objective,
  trainable: Callable[[objectives.Pair], Sequence[str]],
  roles: dict[str, str],
) -> Method:
  """Builds a phase that trains some stages of the student on one term only."""
  return joint.joint(
    recipe._replace(epochs=fraction * recipe.epochs),
    terms={name: term},
    label_weight=0.0,
    trainable=trainable,
    name=name,
    student=roles['student'],
    teacher=roles['teacher'],
  )


def _remaining(recipe: Recipe, fraction: float) -> Recipe:
  """Returns the recipe of the second phase.

  Raises:
    UsageError: the fraction of the first phase is not in [0, 1].
  """
  checks.number('first', fraction, at_least=0, at_most=1)
  return recipe._replace(epochs=(1 - fraction) * recipe.epochs)


def _paraphraser(
  recipe: Recipe,
  fraction: float,
  feature_pairs: FeaturePairs | None,
  student: str,
  teacher: str,
) -> Method:
  """Trains the role 'paraphraser' to reconstruct the teacher's last map."""
  recipe = recipe._replace(epochs=fraction * recipe.epochs)

  def last_map(carry: Carry) -> tuple[str, tuple[int, int, int]]:
    pair = objectives.pair_of(
      phases.model_in(carry, student).network,
      phases.model_in(carry, teacher).network,
      recipe,
    )
    name = pairs.map_pairs(pair, feature_pairs)[-1][1]
    return name, pairs.map_shape(pair.teacher_shapes, name)

  def new_paraphraser(rng, carry):
    _, shape = last_map(carry)
    module = adapters.Factor(shape[-1] // 2, decode=shape[-1])
    network = Network((Stage('factor', module),))
    image = {'image': jax.ShapeDtypeStruct((1, *shape), jnp.float32)}
    return {'paraphraser': Model(network, graph.init(network, rng, image))}

  @marks.any_classes
  def phase(carry: Carry) -> Phase:
    feature, _ = last_map(carry)
    networks = {role: carry[role].network for role in ('paraphraser', teacher)}

    def loss_fn(variables, batches, rng, progress):
      del rng, progress
      image = {'image': batches['train']['image']}
      teacher_features, _ = graph.run(
        networks[teacher], variables[teacher], image
      )
      target = jax.lax.stop_gradient(maps.as_map(teacher_features[feature]))
      features, updates = graph.run(
        networks['paraphraser'],
        variables['paraphraser'],
        {'image': target},
        train=True,
      )
      loss = losses.squared_distance(features['factor.reconstruction'], target)
      return loss.mean(), ({'paraphraser': updates}, {})

    paraphraser = phases.gradient_phase(
      'paraphraser',
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks=networks,
      trainable={'paraphraser': None},
    )
    return paraphraser._replace(eval_models={})

  @marks.any_classes
  def setup(carry: Carry) -> Phase:
    last_map(carry)  # refuses features that do not fit before any training
    return phases.setup_phase('new_paraphraser', new_paraphraser)

  return setup, phase
