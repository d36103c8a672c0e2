"""The grid of regularisation: who teaches whom, with which images."""

import jax
import numpy as np
import pytest

from jaxdistill import study
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model
from jaxdistill.data.transforms import augment, mixing
from jaxdistill.methods.orthogonality import regularization_study
from jaxdistill.phases import recipes

CUTMIX = mixing.cutmix(num_classes=3, probability=1.0)
IMAGES = ('plain', 'regularized')
PAIRS = tuple((t, s) for t in IMAGES for s in IMAGES)
STUDENTS = {
  f'{kind}.{t}.{s}': (t, s) for kind in ('label', 'feature') for t, s in PAIRS
}


@pytest.fixture(scope='module')
def built(recipe, student):
  """Name -> phase of the protocol, with untrained networks in all roles."""
  method = regularization_study.regularization_protocol(
    recipe, regularized=CUTMIX
  )
  roles = ('student', *IMAGES, *STUDENTS)
  carry = {role: Model(student.network, student.variables) for role in roles}
  phases = [make(carry) for make in method]
  return {phase.name: phase for phase in phases}, carry


def test_each_network_has_its_teacher_and_its_images(built, dataset):
  phases, carry = built
  trained = {name: p for name, p in phases.items() if p.num_steps}
  assert set(trained) == {*IMAGES, *STUDENTS}
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  for name, phase in trained.items():
    state, frozen = jax.eval_shape(
      lambda rng, phase=phase: phase.init(rng, carry), jax.random.key(0)
    )
    teacher, images = STUDENTS.get(name, (None, name))
    assert set(frozen) == ({teacher} if teacher else set())
    assert set(state.variables) - {'adapters'} == {name}
    assert tuple(phase.eval_models) == (name,)
    batch = jax.eval_shape(
      phase.streams['train'].augment, jax.random.key(0), raw
    )
    # Only mixed images have mixed labels.
    assert batch['label'].shape == ((8,) if images == 'plain' else (8, 3))


def test_each_student_begins_as_a_new_network(built, student):
  phases, carry = built
  kernels = []
  for name in ('new_regularized', *(f'new_{s}' for s in STUDENTS)):
    state, _ = phases[name].init(jax.random.key(len(kernels)), carry)
    (variables,) = state.values()
    kernels.append(variables['params']['head']['linear']['kernel'])
  assert len({np.asarray(k).tobytes() for k in kernels}) == len(kernels)
  state, _ = phases['new_plain'].init(jax.random.key(0), carry)
  assert state['plain'] is student.variables


def test_regularised_images_are_those_of_a_row_with_this_augment(dataset):
  """They are standardised as the images of any recipe are."""
  crop = augment.crop_flip(padding=1)
  plain = recipes.recipe(dataset, epochs=1, batch_size=8)
  row = recipes.recipe(
    dataset, epochs=1, batch_size=8, augment=augment.chain(crop, CUTMIX)
  )
  changed = recipes.with_augment(plain, augment.chain(crop, CUTMIX))
  raw = {k: v[:8] for k, v in dataset.splits['train'].items()}
  batches = [r.stream.augment(jax.random.key(1), raw) for r in (row, changed)]
  jax.tree.map(np.testing.assert_array_equal, *batches)
  assert changed.example == row.example
  assert changed.stream._replace(augment=row.stream.augment) == row.stream


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'kinds': ('lable',)}, "unknown kind of distillation 'lable'"),
    ({'alpha': 1.5}, 'alpha: expected a number'),
    ({'temperature': 0.0}, 'temperature: expected a number'),
    ({'beta': -1.0}, 'beta: expected a number'),
  ],
)
def test_invalid_arguments_are_refused(arguments, words, recipe):
  with pytest.raises(UsageError) as caught:
    regularization_study.regularization_protocol(
      recipe, regularized=CUTMIX, **arguments
    )
  assert words in str(caught.value)


def test_a_config_gives_the_grid_in_one_row():
  plan = study.plan(
    {
      'data': {'name': 'digits'},
      'student': {'name': 'resnet8', 'widths': (2, 2, 2), 'stem_width': 2},
      'epochs': 1,
      'method': {
        'name': 'regularization_protocol',
        'kinds': ('label',),
        'regularized': {'name': 'regularized', 'mix': {'name': 'cutmix'}},
      },
    }
  )
  (row,) = plan.rows
  # Two teachers and four students, each of them first made and then trained,
  # and the student that is handed on.
  assert len(row.method) == 2 * (2 + 4) + 1
