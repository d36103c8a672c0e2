"""Exports: students as files that answer like the students."""

import json
import pathlib
import re

import jax
import numpy as np
import PIL.Image
import pytest

from jaxdistill import networks, study
from jaxdistill.networks.weights import files
from jaxdistill.study import stablehlo
from jaxdistill.study.formats import table


def test_an_export_opens_again_as_the_trained_student(
  cli, config, finished, copied, dataset
):
  out, _ = cli.fit(config, copied, '--mode=export')
  paths = [pathlib.Path(line) for line in out.splitlines()]
  assert [p.name for p in paths] == [
    f'{name}-0-{when}.safetensors'
    for name in ('student-alone', 'kd')
    for when in ('last', 'best')
  ]
  exported = networks.load(copied / 'export' / 'kd-0-last.safetensors')
  student = files.load_tree(copied / 'rows/kd/0/phase0.safetensors')[0]
  tiny = study.plan(cli.load(config)).networks
  image = dataset.splits['test']['image'].astype(np.float32)
  np.testing.assert_array_equal(
    networks.apply(*exported, image),
    networks.apply(tiny['student'], student['student'], image),
  )
  assert 'teacher' not in student


def test_an_exported_program_gives_the_students_logits_for_raw_images(
  cli, config, copied
):
  out, _ = cli.fit(
    config, copied, '--mode=export', '--format=stablehlo,safetensors'
  )
  assert len(out.splitlines()) == 8
  path = copied / 'export' / 'kd-0-last'
  image = np.load(config.parent / 'data.npz')['test_image']
  variables, metadata = files.load_tree(f'{path}.safetensors')
  mean, std = (np.float32(metadata[k]) for k in ('mean', 'std'))
  assert metadata['image_shape'] == [8, 8, 1]
  network = networks.from_description(metadata['network'])
  expected = networks.apply(network, variables, (image - mean) / std)
  for batch_size in (1, 7, 30):
    np.testing.assert_allclose(
      stablehlo.load(f'{path}.stablehlo')(image[:batch_size]),
      expected[:batch_size],
      atol=1e-5,
    )
  program = json.loads(pathlib.Path(f'{path}.stablehlo.json').read_text())
  assert program['input'] == 'raw images, uint8 [B, 8, 8, 1]'
  assert program['output'] == '[B, 3] logits'
  assert program['platforms'] == ['cpu', 'cuda', 'tpu']
  assert (program['row'], program['seed'], program['model']) == (
    'kd',
    0,
    'last',
  )
  for key in ('mean', 'std'):
    assert program[key] == metadata[key]


def test_a_file_whose_outputs_differ_is_not_kept(
  cli, config, copied, monkeypatch
):
  to_stablehlo = stablehlo.to_stablehlo

  def changed(model, *arguments, **options):
    variables = jax.tree.map(lambda x: x + 0.1, model.variables)
    return to_stablehlo(
      model._replace(variables=variables), *arguments, **options
    )

  monkeypatch.setattr(stablehlo, 'to_stablehlo', changed)
  with pytest.raises(RuntimeError, match=r'stablehlo: its outputs differ'):
    cli.call(
      f'--config={config}',
      f'--workdir={copied}',
      '--mode=export',
      '--format=stablehlo',
    )
  assert not list((copied / 'export').glob('*.stablehlo*'))


def test_a_model_card_lies_beside_every_file(cli, config, copied, workdirs):
  cli.fit(config, copied, '--mode=export')
  files_of_export = sorted(p.name for p in (copied / 'export').iterdir())
  names = [
    f'{row}-0-{when}.safetensors'
    for row in ('kd', 'student-alone')
    for when in ('best', 'last')
  ]
  assert files_of_export == sorted(
    f'{name}{ending}' for name in names for ending in ('', '.json', '.md')
  )
  card = (copied / 'export/kd-0-best.safetensors.md').read_text()
  result = workdirs.result(copied, 'kd')
  assert f'This student: {100 * result["test"]["best"]["top1"]:.2f}' in card
  assert f'Parameters: {result["parameters"]:,}' in card
  size = (copied / 'export/kd-0-best.safetensors').stat().st_size
  assert f'{size:,} bytes' in card
  assert 'Verdict: UNCLEAR' in card  # one seed
  assert '(student alone)' in card
  assert '(teacher)' in card
  assert 'Licence' in card
  assert 'data.npz' in card and str(config.parent) not in card


@pytest.mark.parametrize('kind', table.FORMATS)
def test_the_code_on_a_model_card_gives_the_students_outputs_for_a_file(
  kind, cli, config, copied, monkeypatch
):
  for package in table.FORMATS[kind].packages:
    pytest.importorskip(package)
  formats = f'--format=safetensors,{kind}'
  cli.fit(config, copied, '--mode=export', '--row=kd', formats)
  monkeypatch.chdir(copied / 'export')
  card = pathlib.Path(f'kd-0-last.{kind}.md').read_text()
  assert 'as grey from 0 to 255; the shorter side is resized' in card
  (code,) = re.findall(r'```python\n(.*?)```', card, re.S)
  image = np.load(config.parent / 'data.npz')['test_image'][:1]
  PIL.Image.fromarray(image[0, ..., 0]).save('photo.jpg', 'PNG')
  space = {}
  with jax.numpy_rank_promotion('allow'):
    exec(code, space)
  variables, metadata = files.load_tree('kd-0-last.safetensors')
  network = networks.from_description(metadata['network'])
  mean, std = (np.float32(metadata[k]) for k in ('mean', 'std'))
  np.testing.assert_allclose(
    np.reshape(space['outputs'], (1, -1)),
    networks.apply(network, variables, (image - mean) / std),
    atol=1e-3,
  )
