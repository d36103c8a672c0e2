"""Knowledge distillation for vision in JAX: make a model smaller, reproducibly.

    import jaxdistill as jd

    dataset = jd.data.digits(train_subset=200)
    network = jd.networks.create('resnet8', num_classes=10)
    recipe = jd.recipe(dataset, epochs=20)
    models = {'teacher': jd.new_model(network, recipe, seed=1),
              'student': jd.new_model(network, recipe)}
    method = jd.methods.supervised(recipe, student='teacher')
    method += jd.methods.kd(recipe)
    student = jd.fit(method, models, dataset).carry['student']
    print(jd.evaluate(student, dataset))

The names in `__all__` are the public interface. Everything else may change
between minor versions. Names are imported when they are first used, so that
`import jaxdistill` itself is quick and needs nothing but the standard library.
"""

from typing import TYPE_CHECKING

from jaxdistill._version import __version__
from jaxdistill.core import lazy

if TYPE_CHECKING:
  from jaxdistill import (
    analysis,
    data,
    losses,
    methods,
    networks,
    objectives,
    optimizers,
    phases,
    pruning,
    study,
    tasks,
  )
  from jaxdistill.core.checks import UsageError
  from jaxdistill.core.types import (
    Augment,
    Batch,
    Carry,
    Dataset,
    FeaturePairs,
    Features,
    Method,
    Metric,
    Metrics,
    Model,
    Network,
    Phase,
    Recipe,
    Stage,
    Stream,
    Task,
    Variables,
  )
  from jaxdistill.networks.weights.files import load, save
  from jaxdistill.objectives.types import Objective, Pair, Term
  from jaxdistill.optimizers import Optimizer, Schedule
  from jaxdistill.phases.gradient import gradient_phase
  from jaxdistill.phases.recipes import new_model, preprocess, recipe
  from jaxdistill.study.distilling.call import distill
  from jaxdistill.study.opening import predictor
  from jaxdistill.training.evaluation import evaluate
  from jaxdistill.training.loop import FitOptions, Fitted, fit

_PACKAGES = (
  *('analysis', 'data', 'losses', 'methods', 'networks', 'objectives'),
  *('optimizers', 'phases', 'pruning', 'study', 'tasks'),
)
# Name -> the module that defines it.
_HOMES = {
  'UsageError': 'jaxdistill.core.checks',
  **dict.fromkeys(
    (
      *('Augment', 'Batch', 'Carry', 'Dataset', 'FeaturePairs', 'Features'),
      *('Method', 'Metric', 'Metrics', 'Model', 'Network', 'Phase', 'Recipe'),
      *('Stage', 'Stream', 'Task', 'Variables'),
    ),
    'jaxdistill.core.types',
  ),
  **dict.fromkeys(('load', 'save'), 'jaxdistill.networks.weights.files'),
  **dict.fromkeys(('Objective', 'Pair', 'Term'), 'jaxdistill.objectives.types'),
  **dict.fromkeys(('Optimizer', 'Schedule'), 'jaxdistill.optimizers'),
  'distill': 'jaxdistill.study.distilling.call',
  'predictor': 'jaxdistill.study.opening',
  'gradient_phase': 'jaxdistill.phases.gradient',
  **dict.fromkeys(
    ('new_model', 'preprocess', 'recipe'), 'jaxdistill.phases.recipes'
  ),
  'evaluate': 'jaxdistill.training.evaluation',
  **dict.fromkeys(('FitOptions', 'Fitted', 'fit'), 'jaxdistill.training.loop'),
}

__all__ = [
  'Augment',
  'Batch',
  'Carry',
  'Dataset',
  'FeaturePairs',
  'Features',
  'FitOptions',
  'Fitted',
  'Method',
  'Metric',
  'Metrics',
  'Model',
  'Network',
  'Objective',
  'Optimizer',
  'Pair',
  'Phase',
  'Recipe',
  'Schedule',
  'Stage',
  'Stream',
  'Task',
  'Term',
  'UsageError',
  'Variables',
  '__version__',
  'analysis',
  'data',
  'distill',
  'evaluate',
  'fit',
  'gradient_phase',
  'load',
  'losses',
  'methods',
  'networks',
  'new_model',
  'objectives',
  'optimizers',
  'phases',
  'predictor',
  'preprocess',
  'pruning',
  'recipe',
  'save',
  'study',
  'tasks',
]


if not TYPE_CHECKING:  # else type checkers would accept every name
  __getattr__, __dir__ = lazy.attributes(
    __name__, __all__, _HOMES, modules=_PACKAGES
  )
