"""Methods that prepare the student's trunk before they train it on labels.

The published schedules prepend 30 epochs at a constant rate to 240; here both
stages share the recipe's epochs, and each runs the recipe's schedule, so that
every method gets the same budget.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxdistill import losses, steps
from jaxdistill import terms as terms_lib
from jaxdistill.methods import joint
from jaxdistill.networks import staged
from jaxdistill.terms import helpers, pairs
from jaxdistill.types import Carry, Method, Model, Network, Phase, Recipe, Stage


def fitnets(
  recipe: Recipe,
  *,
  first: float = 1 / 9,
  hint_weight: float = 100.0,
  weight: float = 0.9,
  temperature: float = 4.0,
  label_weight: float = 0.1,
  cut: pairs.Pairs = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """FitNets: the stages up to the hint learn it, then all learn by KD.

  The paper lets the weight of the soft targets fall; here it stays.

  Romero et al., FitNets: Hints for Thin Deep Nets, 2014,
  https://arxiv.org/abs/1412.6550

  Args:
    recipe: how.
    first: share of the epochs spent on the hint.
    hint_weight: factor on the hint's loss.
    weight: factor on the soft targets.
    temperature: of the soft targets.
    label_weight: factor on the loss of the labels.
    cut: the hint, one pair; None: the second group of maps.
    student: the role that trains.
    teacher: the role it learns from.
  """
  roles = {'student': student, 'teacher': teacher}
  hint = terms_lib.hint(weight=hint_weight, cut=cut)
  soft = terms_lib.soft_target(weight=weight, temperature=temperature)

  def up_to_hint(pair: terms_lib.Pair) -> Sequence[str]:
    return pairs.stages_up_to(
      pair.student, pair.student_shapes, terms_lib.hint_cut(pair, cut)[0]
    )

  return _first(recipe, first, 'hint', hint, up_to_hint, roles) + joint.joint(
    _rest(recipe, first),
    terms={'kd': soft},
    label_weight=label_weight,
    name='fitnets',
    student=student,
    teacher=teacher,
  )


def activation_boundaries(
  recipe: Recipe,
  *,
  first: float = 1 / 9,
  boundary_weight: float = 3e-3,
  margin: float = 1.0,
  cut: pairs.Pairs = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """AB: the trunk learns on which side of zero features lie, then labels.

  Labels alone in the second stage are RepDistiller's choice; the authors add
  soft targets.

  Heo et al., Knowledge Transfer via Distillation of Activation Boundaries
  Formed by Hidden Neurons, 2018, https://arxiv.org/abs/1811.03233

  Args:
    recipe: how.
    first: share of the epochs spent on the boundaries.
    boundary_weight: factor on the boundaries' loss.
    margin: see `losses.activation_boundary_loss`.
    cut: pairs of features before their activation.
    student: the role that trains.
    teacher: the role it learns from.
  """
  roles = {'student': student, 'teacher': teacher}
  term = terms_lib.boundaries(weight=boundary_weight, margin=margin, cut=cut)

  def trunk(pair: terms_lib.Pair) -> Sequence[str]:
    deepest, _ = terms_lib.middle_cut(pair, cut, pre=True)[-1]
    return pairs.stages_up_to(pair.student, pair.student_shapes, deepest)

  return _first(recipe, first, 'boundaries', term, trunk, roles) + (
    joint.supervised(_rest(recipe, first), student=student)
  )


def flow_of_solution(
  recipe: Recipe,
  *,
  first: float = 1 / 9,
  flow_weight: float = 1.0,
  cut: pairs.Pairs = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """FSP: the trunk learns the relations between layers, then labels.

  Yim et al., A Gift from Knowledge Distillation: Fast Optimization, Network
  Minimization and Transfer Learning, 2017,
  https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html

  Args:
    recipe: how.
    first: share of the epochs spent on the relations.
    flow_weight: factor on their loss.
    cut: pairs in order, of equal channels.
    student: the role that trains.
    teacher: the role it learns from.
  """
  roles = {'student': student, 'teacher': teacher}
  term = terms_lib.flow(weight=flow_weight, cut=cut)

  def trunk(pair: terms_lib.Pair) -> Sequence[str]:
    deepest, _ = terms_lib.middle_cut(pair, cut)[-1]
    return pairs.stages_up_to(pair.student, pair.student_shapes, deepest)

  return _first(recipe, first, 'flow', term, trunk, roles) + (
    joint.supervised(_rest(recipe, first), student=student)
  )


def factor_transfer(
  recipe: Recipe,
  *,
  first: float = 1 / 9,
  weight: float = 200.0,
  attention: bool = True,
  label_weight: float = 1.0,
  cut: pairs.Pairs = None,
  student: str = 'student',
  teacher: str = 'teacher',
) -> Method:
  """FT: a paraphraser learns the teacher's last map, then the student both.

  The paraphraser has batch norm, which RepDistiller's lacks and which lets it
  share the recipe's rate instead of a constant 0.01.

  Kim et al., Paraphrasing Complex Network: Network Compression via Factor
  Transfer, 2018, https://arxiv.org/abs/1802.04977

  Args:
    recipe: how.
    first: share of the epochs spent on the paraphraser.
    weight: factor on the factors' loss.
    attention: see `losses.factor_transfer_loss`.
    label_weight: factor on the loss of the labels.
    cut: one pair; None: the last maps of both.
    student: the role that trains.
    teacher: the role it learns from.
  """
  return (
    *_paraphraser(recipe, first, cut, student, teacher),
    *joint.joint(
      _rest(recipe, first),
      terms={
        'ft': terms_lib.factor(weight=weight, attention=attention, cut=cut)
      },
      label_weight=label_weight,
      student=student,
      teacher=teacher,
      constant=('paraphraser',),
      name='ft',
    ),
  )


def _first(
  recipe: Recipe,
  share: float,
  name: str,
  term: terms_lib.TermFactory,
  trainable: Callable[[terms_lib.Pair], Sequence[str]],
  roles: dict[str, str],
) -> Method:
  """The first stage: a term alone, for some stages of the student."""
  return joint.joint(
    recipe._replace(epochs=share * recipe.epochs),
    terms={name: term},
    label_weight=0.0,
    trainable=trainable,
    name=name,
    student=roles['student'],
    teacher=roles['teacher'],
  )


def _rest(recipe: Recipe, share: float) -> Recipe:
  return recipe._replace(epochs=(1 - share) * recipe.epochs)


def _paraphraser(
  recipe: Recipe,
  share: float,
  cut: pairs.Pairs,
  student: str,
  teacher: str,
) -> Method:
  """Trains 'paraphraser' to reconstruct the teacher's last map."""
  recipe = recipe._replace(epochs=share * recipe.epochs)

  def last_map(carry: Carry) -> tuple[str, tuple[int, int, int]]:
    pair = terms_lib.pair_of(
      carry[student].network, carry[teacher].network, recipe
    )
    name = terms_lib.middle_cut(pair, cut)[-1][1]
    return name, pairs.map_shape(pair.teacher_shapes, name)

  def new(rng, carry):
    _, shape = last_map(carry)
    module = helpers.Factor(shape[-1] // 2, decode=shape[-1])
    network = Network((Stage('factor', module),))
    image = {'image': jax.ShapeDtypeStruct((1, *shape), jnp.float32)}
    return {'paraphraser': Model(network, staged.init(network, rng, image))}

  def phase(carry: Carry) -> Phase:
    feature, _ = last_map(carry)
    networks = {role: carry[role].network for role in ('paraphraser', teacher)}

    def loss_fn(variables, batches, rng, progress):
      del rng, progress
      image = {'image': batches['train']['image']}
      theirs, _ = staged.run(networks[teacher], variables[teacher], image)
      target = jax.lax.stop_gradient(theirs[feature])
      features, updates = staged.run(
        networks['paraphraser'],
        variables['paraphraser'],
        {'image': target},
        train=True,
      )
      loss = losses.squared_distance(features['factor.reconstruction'], target)
      return loss.mean(), ({'paraphraser': updates}, {})

    made = steps.gradient_phase(
      'paraphraser',
      loss_fn,
      recipe.optimizer(recipe.num_steps),
      num_steps=recipe.num_steps,
      streams={'train': recipe.stream},
      networks=networks,
      trainable={'paraphraser': None},
    )
    return made._replace(views={})

  return (lambda carry: steps.setup_phase('new_paraphraser', new), phase)
