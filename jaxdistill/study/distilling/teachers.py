"""Which section of a config the argument `teacher` of a call stands for."""

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any
import zlib

from flax import linen as nn
from flax import nnx
import jax
import jax.numpy as jnp

from jaxdistill.core import checks
from jaxdistill.core.checks import UsageError
from jaxdistill.core.types import Model, Network
from jaxdistill.networks import adapters, graph
from jaxdistill.networks.adapters import linen, programs
from jaxdistill.networks.registry import NETWORKS
from jaxdistill.networks.weights import files, hub, huggingface, pretrained
from jaxdistill.objectives import pairs
from jaxdistill.study import build, config, models, results, validate
from jaxdistill.study.distilling import sources
from jaxdistill.study.distilling.teacher_sections import Teacher
from jaxdistill.study.parse import parse
from jaxdistill.study.registry import TABLES

_FILE = 'teacher.safetensors'
_SUFFIX = '.safetensors'
# What a PyTorch file of ImageNet's 1,000 classes was trained with.
IMAGENET: dict[str, tuple[float, ...]] = {
  'mean': (123.675, 116.28, 103.53),
  'std': (58.395, 57.12, 57.375),
}
_LITE = 'efficientnet_lite'
LITE: dict[str, tuple[float, ...]] = {'mean': (127.0,) * 3, 'std': (128.0,) * 3}
_EXPECTED = (
  "expected a work directory, 'WORKDIR:ROW', a .safetensors file, "
  "'NETWORK:FILE', the name of a network, 'hf:OWNER/NAME' or a folder with "
  'config.json'
)


def chosen(
  teacher: Any, image_shape: Sequence[int], out: pathlib.Path
) -> Teacher:
  """Returns the teacher that a call means.

  Args:
    teacher: see `call.distill`.
    image_shape: (H, W, C) of the images that it gets.
    out: the work directory, into which its files will be written.

  Raises:
    UsageError: there is no such teacher, or it cannot read the images.
  """
  if isinstance(teacher, list):
    return _joined([chosen(part, image_shape, out) for part in teacher])
  if isinstance(teacher, Mapping) and [*teacher] == ['joined']:
    parts = teacher['joined']
    if not isinstance(parts, (list, tuple)) or not parts:
      raise UsageError(
        f'teacher.joined: expected a list of teachers, got {parts!r}'
      )
    part = parts[0] if len(parts) == 1 else list(parts)
    return chosen(part, image_shape, out)
  if isinstance(teacher, Mapping):
    return _of_section(dict(teacher), image_shape, out)
  if isinstance(teacher, str | os.PathLike):
    return _named(os.fspath(teacher), image_shape, out)
  model = _model(teacher)
  _outputs(model.network, image_shape)  # refuses images that it cannot read
  return _of_model(model, {}, f'a {type(teacher).__name__}', image_shape, out)


def _joined(parts: Sequence[Teacher]) -> Teacher:
  """Returns the teacher that joins the vectors of several."""
  if len(parts) < 2:
    raise UsageError(
      f'teacher: expected one teacher, or a list of at least two, got a list '
      f'of {len(parts)}'
    )
  for part in parts:
    if not part.is_trained:
      raise UsageError(
        f'teacher: expected trained teachers, whose vectors are joined, got '
        f'{part.title!r} without weights'
      )
  data = [part.data for part in parts if part.data]
  if any(other != data[0] for other in data):
    raise UsageError(
      'teacher: the PyTorch weights of two teachers need images that are '
      'standardised in different ways; convert one of them with jd.save, which '
      'keeps its mean and std'
    )
  return Teacher(
    {'joined': [part.pooled_section for part in parts]},
    ' + '.join(part.title for part in parts),
    files={name: c for part in parts for name, c in part.files.items()},
    data=data[0] if data else {},
    is_classifier=False,
    outputs=sum(part.outputs or 0 for part in parts),
    parts=tuple(parts),
  )


def _named(text: str, image_shape: Sequence[int], out: pathlib.Path) -> Teacher:
  """Returns the teacher of a path or a name."""
  place = pathlib.Path(text).expanduser()
  if text.startswith(hub.PREFIX) or (place / 'config.json').is_file():
    return _pretrained(sources.absolute(text), image_shape, text)
  if place.is_dir():
    if not (place / _FILE).is_file():
      raise UsageError(
        f'teacher: {text!r} holds no {_FILE}; name one of its rows, '
        f"'{text}:ROW'"
      )
    return _of_file(place / _FILE, image_shape, text)
  if place.is_file():
    return _of_file(place, image_shape, text)
  if text in NETWORKS:
    return _of_section({'name': text}, image_shape, out)
  first, separator, last = text.rpartition(':')
  if separator and pathlib.Path(first).expanduser().is_dir():
    model, about = _row(pathlib.Path(first).expanduser(), last)
    return _of_model(model, about, f'row {last!r} of {first}', image_shape, out)
  first, separator, last = text.partition(':')
  if separator and first in NETWORKS:
    section = {'name': first, 'weights': sources.absolute(last)}
    return _of_section(section, image_shape, out)
  raise UsageError(f'teacher: {_EXPECTED}; {_unknown(first)}')


def _pretrained(
  reference: str, image_shape: Sequence[int], title: str
) -> Teacher:
  """Returns a teacher of Hugging Face, which resizes images by itself."""
  loaded = huggingface.load(reference)
  section: dict[str, Any] = {'weights': reference}
  shape = (loaded.image_size, loaded.image_size, huggingface.CHANNELS)
  if tuple(image_shape) != shape:
    section['image_size'] = loaded.image_size
  return Teacher(
    section,
    title,
    None,
    _outputs(loaded.model.network, shape),
    label_names=tuple(loaded.metadata.get('label_names', ())),
    is_classifier=pairs.is_classifier(loaded.model.network),
  )


def _unknown(name: str) -> str:
  """Says that there is neither a file nor a network of a name."""
  return str(checks.unknown('file, folder or network', name, NETWORKS))


def _of_section(
  section: dict[str, Any], image_shape: Sequence[int], out: pathlib.Path
) -> Teacher:
  """Returns the teacher of a section of a config."""
  network = {k: v for k, v in section.items() if k not in validate.TEACHER_KEYS}
  validate.check_training(section)
  size = section.get('image_size')
  shape = (size, size, image_shape[-1]) if size else image_shape
  if 'checkpoint' in section and not network:
    found = _named(str(section['checkpoint']), shape, out)
    keys = ('image_size', 'training')
    own = {k: v for k, v in section.items() if k in keys}
    return found._replace(section={**found.section, **own})
  if 'weights' in section and not network:
    reference = str(section['weights'])
    teacher = _pretrained(reference, image_shape, reference)
    return teacher._replace(section={**teacher.section, **section})
  title = str(section.get('name'))
  if title == 'pooled':
    return _of_pooled(section, network, shape, out)
  if title == 'program' and {'path', 'checkpoint'} <= section.keys():
    path = str(section['path'])
    program = programs.program(path)
    return Teacher(section, path, None, _outputs(program, shape))
  if 'weights' not in section:
    teacher = Teacher(section, title, network, section.get('num_classes'))
    if 'checkpoint' not in section:
      return teacher._replace(is_trained=False)
    file = pathlib.Path(str(section['checkpoint'])).expanduser()
    if file.exists() and (teacher.outputs is None or title == 'stored'):
      found = _named(str(file), image_shape, out)
      outputs = teacher.outputs or found.outputs
      section['num_classes'] = outputs
      teacher = teacher._replace(
        outputs=outputs, head=found.head, is_classifier=found.is_classifier
      )
    return teacher
  weights = str(section['weights'])
  if not pathlib.Path(weights).expanduser().is_file():
    raise UsageError(f'teacher: no file {weights!r}')
  image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  make = NETWORKS[checks.choice('network', title, NETWORKS)]
  arguments = {k: v for k, v in network.items() if k != 'name'}
  built = make(**{'num_classes': 1, **arguments})
  outputs = section.get('num_classes') or pretrained.num_outputs(
    weights, built, {'image': image}
  )
  section['num_classes'] = outputs
  return Teacher(
    section,
    f'{title} with the weights of {weights}',
    network,
    outputs,
    data=_standardisation(title) if outputs == 1000 else {},
    is_classifier=pairs.is_classifier(built),
    head=_head(built),
  )


def _of_pooled(
  section: dict[str, Any],
  network: Mapping[str, Any],
  image_shape: Sequence[int],
  out: pathlib.Path,
) -> Teacher:
  """Returns the teacher of a section whose network gives vectors."""
  made = parse(
    network, TABLES[Network], 'teacher', TABLES, context=('num_classes',)
  )
  files = {k: v for k, v in section.items() if k not in network}
  inner = _of_section({**network['network'], **files}, image_shape, out)
  built = models.build_network(made, 'teacher', inner.outputs or 1)
  return inner._replace(
    section=section, outputs=_outputs(built, image_shape), is_classifier=False
  )


def _standardisation(network: str) -> dict[str, tuple[float, ...]]:
  """Returns how images of ImageNet were standardised for a network."""
  return LITE if network.startswith(_LITE) else IMAGENET


def _of_file(
  file: pathlib.Path, image_shape: Sequence[int], title: str
) -> Teacher:
  """Returns the teacher of a file of this library."""
  if file.suffix != _SUFFIX:
    raise UsageError(
      f'teacher: {title!r} does not say what its network is; write '
      f"'NETWORK:{title}'"
    )
  metadata = files.load_tree(file)[1]
  if 'network' not in metadata:
    raise UsageError(
      f'teacher: {title!r} holds no description of a network; write '
      f"'NETWORK:{title}'"
    )
  network, path = files.stored(file), sources.absolute(file)
  return Teacher(
    {'checkpoint': path},
    title,
    {'name': 'stored', 'path': path},
    _outputs(network, image_shape),
    label_names=tuple(metadata.get('label_names') or ()),
    is_classifier=pairs.is_classifier(network)
    and bool(metadata.get('class_scores', True)),
    head=_head(network),
  )


def _row(workdir: pathlib.Path, label: str) -> tuple[Model, dict[str, Any]]:
  """Returns the model of a finished row, of its first seed, and its data."""
  plan = build.plan(config.load(config.kept(workdir)))
  rows = {row.label: row for row in plan.rows}
  row = rows[checks.choice('row of the teacher', label, rows)]
  model = results.trained(plan, row, row.seeds[0], workdir)['last']
  return model, plan.about_data


def _model(teacher: Any) -> Model:
  """Returns a model that was given as an object."""
  if isinstance(teacher, nnx.Module):
    return adapters.from_nnx(teacher)
  if isinstance(teacher, tuple) and len(teacher) == 2:
    network, variables = teacher
    if isinstance(network, Network):
      return Model(network, variables)
    if isinstance(network, nn.Module):
      adopted = adapters.from_linen(network, linen.train_argument(network))
      nested = {name: {'model': tree} for name, tree in variables.items()}
      return Model(adopted, nested)
  raise UsageError(
    f'teacher: {_EXPECTED}, an nnx.Module, (Linen module, variables) or '
    f'(network, variables), got {type(teacher).__name__}'
  )


def _of_model(
  model: Model,
  about: Mapping[str, Any],
  title: str,
  image_shape: Sequence[int],
  out: pathlib.Path,
) -> Teacher:
  """Returns the teacher of a model, whose files have yet to be written.

  The names of the files contain their checksum, so that no file of another
  teacher is ever replaced.
  """
  outputs = _outputs(model.network, image_shape)
  names = tuple(about.get('label_names', ()))
  described = all(isinstance(s.module, nn.Module) for s in model.network.stages)
  if described:
    content = files.to_bytes(model, about)
    name = f'teacher-{zlib.crc32(content):08x}{_SUFFIX}'
    path = str(out / name)
    return Teacher(
      {'checkpoint': path},
      title,
      {'name': 'stored', 'path': path},
      outputs,
      label_names=names,
      files={name: content},
      is_classifier=pairs.is_classifier(model.network)
      and bool(about.get('class_scores', True)),
      head=_head(model.network),
    )
  program, variables = programs.to_program(model, image_shape)
  content = files.to_bytes(Model(Network(()), variables), about)
  checksum = zlib.crc32(content, programs.checksum(program))
  stem = f'teacher-{checksum:08x}'
  section = {
    'name': 'program',
    'path': str(out / f'{stem}.program'),
    'checkpoint': str(out / f'{stem}{_SUFFIX}'),
  }
  written = {f'{stem}.program': program, f'{stem}{_SUFFIX}': content}
  return Teacher(
    section, title, None, outputs, label_names=names, files=written
  )


def _head(network: Network) -> str:
  """Returns the name of a network's last stage if it gives scores; or ''."""
  return network.stages[-1].name if pairs.is_classifier(network) else ''


def _outputs(network: Network, image_shape: Sequence[int]) -> int:
  """Returns the number of outputs of a network.

  Raises:
    UsageError: it cannot read the images, or its outputs are not `[B, N]`.
  """
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  try:
    shapes = graph.shapes(network, {'image': image})
    shape = shapes[graph.main_output(network)].shape
  except Exception as error:  # whatever a user's module raises
    raise UsageError(
      f'teacher: it cannot read images {tuple(image_shape)} '
      f'({checks.reason(error)[:200]})'
    ) from None
  if len(shape) != 2:
    raise UsageError(
      'teacher: expected outputs [B, N], one number for each class, got the '
      f'shape {list(shape)} for one image'
    )
  return int(shape[1])
