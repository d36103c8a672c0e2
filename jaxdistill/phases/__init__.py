"""Phases: the stretches of training that every method is made of.

A phase is a `Phase` tuple of pure functions. `init` makes its state from the
models in the carry (a dict of everything that phases hand on: models by their
role, such as 'student' and 'teacher'). `step` maps a state and a batch to the
next state. `finish` puts the result back into the carry. A method is a tuple of
functions `carry -> Phase`, so that each phase is built from what the phase
before it left. Methods are joined with `+`.

Almost every phase minimises a loss by its gradient. `gradient_phase` builds
such a phase from a loss function, and this is all that a method of your own
needs:

    import jaxdistill as jd

    def match_logits(recipe, *, weight=1.0, student='student',
                     teacher='teacher'):
      def phase(carry):
        networks = {role: carry[role].network for role in (student, teacher)}

        def loss_fn(variables, batches, rng, progress):
          batch = batches['train']
          image = {'image': batch['image']}
          student_features, updates = jd.networks.run(
            networks[student], variables[student], image, train=True)
          teacher_features, _ = jd.networks.run(
            networks[teacher], variables[teacher], image)
          logits = student_features['head']
          distance = jd.losses.squared_distance(
            logits, teacher_features['head'])
          loss = recipe.task.loss(logits, batch) + weight * distance
          return loss.mean(), ({student: updates}, {})

        return jd.gradient_phase(
          'match_logits', loss_fn, recipe.optimizer(recipe.num_steps),
          num_steps=recipe.num_steps, streams={'train': recipe.stream},
          networks=networks, trainable={student: None})

      return (phase,)

The files of this package:

  gradient.py: a phase that minimises a loss by its gradient.
  statistics.py: a phase that re-estimates batch statistics.
  setup.py: a phase without steps, which only puts models into the carry.
  joint.py: supervised training, and labels together with any loss terms.
  terms.py: the distillation terms of a training loss.
  bilevel.py: the gradient of a validation loss with respect to loss weights.
  recipes.py: recipes, which say how phases are trained.
  parts.py: a phase whose parts train independently of each other.
  roles.py: looking up the model of a role, and comparing two networks.
"""

from jaxdistill.phases.gradient import (
  GradientState,
  LossFunction,
  gradient_phase,
)
from jaxdistill.phases.parts import InParts
from jaxdistill.phases.roles import check_outputs, model_in
from jaxdistill.phases.setup import MakeModels, keep, setup_phase
from jaxdistill.phases.statistics import (
  Forward,
  StatisticsState,
  statistics_phase,
)

__all__ = [
  'Forward',
  'GradientState',
  'InParts',
  'LossFunction',
  'MakeModels',
  'StatisticsState',
  'check_outputs',
  'gradient_phase',
  'keep',
  'model_in',
  'setup_phase',
  'statistics_phase',
]
