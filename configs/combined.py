"""One recipe of three papers: what does each of its parts add?

  jaxdistill --config=configs/combined.py:digits
  jaxdistill --config=configs/combined.py:cifar10 --config.data.path=cifar10.npz
  jaxdistill --config=configs/combined.py:tiny_imagenet \
    --config.data.path=tiny_imagenet.npz

The recipe: the student is the teacher, but its blocks have half of the channels
inside. Its pieces are trained separately (Neighbourhood Distillation). The
student that they form then learns the labels and the teacher's features, which
are weighted by the last weights of a process (DistPro). As an alternative, the
pieces learn one after the other, each from the student's own features (SSKD).

Papers: Shao et al., Neighbourhood Distillation, 2020; Deng et al., DistPro,
2022; Gao et al., An Embarrassingly Simple Approach for Knowledge Distillation,
2018.

Setting: ResNet-14 of 8, 16 and 32 channels. All rows have the same budget
of compute. The rows that search for a process do so once for each seed, for a
quarter of `epochs` on 80 % of the images. A step of the search costs about 1.7
steps of training, so that a search costs a third of `epochs`. Rows without a
search train for a third more epochs instead. The pieces take half of a row's
epochs. In the rows 'without ...' one part is left out, and the other part gets
its epochs: 'without pieces' is DistPro alone, and 'without process' has KD in
place of the process. 'pieces, then reviewkd' has ReviewKD there, and 'equal
weights' has pathways that are not searched. The student of a row with pieces
also gets the teacher's stem and head, which the single methods do not have. In
'stem and head', the student starts with these two stages and new blocks, and
learns by KD alone. Re-estimating batch statistics takes 20 more steps for a
student of pieces and for each stage. The rates of the pieces are those of the
other configs of these papers. Nothing was tuned.

Hardware and time: one CPU core; about 10 minutes for digits, which need no
download, 71 for Tiny ImageNet, and, by the number of steps, about 40 for
CIFAR-10.

Test accuracy over three seeds on digits, CIFAR-10 and Tiny ImageNet: student
alone 92.18, 49.79 and 13.58; KD 95.20, 55.59 and 19.97; the recipe 96.20, 59.29
and 24.79; without process 97.15, 61.35 and 24.12; pieces, then ReviewKD 96.59,
61.35 and 25.21. RESULTS.md has all rows.
"""

NETWORK = {'name': 'resnet14', 'stem_width': 8, 'widths': (8, 16, 32)}
PHOTOGRAPHS = {'name': 'npz', 'validation': 2000}
# Argument -> epochs, batch size, rate of the pieces, data, teacher's training.
EXPERIMENTS = {
  'digits': (
    *(96, 50, 0.3),
    {'name': 'digits', 'train_subset': 200},
    {'subset': 'train', 'epochs': 20},
  ),
  'cifar10': (
    *(3, 64, 1.0),
    {**PHOTOGRAPHS, 'path': 'cifar10.npz', 'train_subset': 10000},
    {'epochs': 12},
  ),
  'tiny_imagenet': (
    *(3, 64, 1.0),
    {**PHOTOGRAPHS, 'path': 'tiny_imagenet.npz', 'train_subset': 20000},
    {'epochs': 12},
  ),
}
ARGUMENTS = tuple(EXPERIMENTS)


def sgd(rate):
  """Returns SGD with a cosine, for pieces and stages."""
  return {
    'name': 'sgd',
    'nesterov': False,
    'weight_decay': 1e-4,
    'schedule': {'name': 'cosine', 'rate': rate},
  }


def pieces(epochs, rate, fine_tune):
  """Returns Neighbourhood Distillation that spends half of the epochs."""
  return {
    'name': 'neighbourhood',
    'neighbourhood_epochs': epochs / 2,
    'neighbourhood_optimizer': sgd(rate),
    'statistics_steps': 20,
    'fine_tune': fine_tune,
    'epochs': epochs / 2,
  }


def rows(epochs, rate):
  """Returns the single methods, the recipe, and the recipe without parts."""
  longer = {'epochs': epochs * 4 / 3}
  space = {'name': 'same_or_deeper', 'transforms': ('T1',)}
  equal = {'name': 'distpro_retrain', 'use': 'equal', 'space': space}
  distpro = {
    'name': 'distpro',
    'use': 'last',
    'search_epochs': epochs / 4,
    'knots': 20,
    'space': space,
  }
  stages = {
    'cut': tuple((group, group) for group in ('group1', 'group2', 'group3')),
    'statistics_steps': 20,
    'stage_optimizer': sgd(0.03),
    **longer,
  }
  without_process = pieces(longer['epochs'], rate, {'name': 'kd'})
  return {
    'student alone': {'name': 'supervised', **longer},
    'kd': {'name': 'kd', **longer},
    'reviewkd': {'name': 'reviewkd', **longer},
    'sskd': {'name': 'sskd', **stages},
    'multi-loss': {'name': 'multi_loss', **stages},
    'recipe': pieces(epochs, rate, distpro),
    'equal weights': pieces(longer['epochs'], rate, equal),
    'without process': without_process,
    'pieces, then reviewkd': pieces(
      longer['epochs'], rate, {'name': 'reviewkd'}
    ),
    'stem and head': {
      **without_process,
      'neighbourhood_epochs': 0,
      **longer,
    },
    'without pieces': distpro,
  }


def get_config(experiment='digits'):
  """Returns the rows on one data set."""
  if experiment not in EXPERIMENTS:
    raise ValueError(
      f'expected one of {", ".join(EXPERIMENTS)}, got {experiment!r}'
    )
  epochs, batch_size, rate, data, training = EXPERIMENTS[experiment]
  photographs = experiment != 'digits'
  return {
    'data': data,
    **({'augment': {'name': 'crop_flip'}} if photographs else {}),
    'teacher': {**NETWORK, 'training': training},
    'student': {'name': 'narrowed', 'network': NETWORK, 'multiplier': 0.5},
    'subset': 'train_subset',
    'batch_size': batch_size,
    'epochs': epochs,
    'evaluate_every': 1000,
    'seeds': 3,
    'schedule': {'name': 'cosine', 'rate': 0.1},
    'methods': rows(epochs, rate),
  }
