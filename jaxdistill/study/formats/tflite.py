"""Models as TFLite programs, which LiteRT runs on phones and small devices.

JAX exports the model as StableHLO for a TPU, which has ordinary convolutions,
and the converter of LiteRT translates that. TensorFlow is not needed.
"""

import contextlib
import io
import os
import pathlib
from typing import Any, Literal
import warnings

import jax
from jax import export as jax_export
import numpy as np

from jaxdistill.core import optional, writing
from jaxdistill.core.checks import UsageError
from jaxdistill.study.formats import source as source_lib
from jaxdistill.study.formats.source import Run, Source

PACKAGES = ('litert_converter', 'ai_edge_litert', 'ai_edge_quantizer')
SIGNATURE, INPUT = 'serving_default', 'image'
Int8 = Literal['weights', 'full']


def write(source: Source, path: pathlib.Path) -> None:
  """Writes a model as a program for one raw image at a time.

  Args:
    source: the model.
    path: the file; the variables are in it too.

  Raises:
    UsageError: the network has several outputs.
  """
  traced = source_lib.program(source, 1)
  if traced.outputs != (source_lib.OUTPUT,):
    raise UsageError(
      'tflite: expected a network with one output, got the outputs '
      f'{", ".join(traced.outputs)}; stablehlo and onnx take several'
    )
  program = jax.jit(lambda image: traced.function(image)[0])
  exported = jax_export.export(program, platforms=['tpu'])(traced.image)
  writing.write(path, _converted(exported.mlir_module_serialized))


def _converted(module: bytes) -> bytes:
  """Returns a program of StableHLO as one of TFLite."""
  ir = optional.require('litert_converter.mlir.ir', 'the format tflite')
  passes = optional.require('litert_converter.mlir.passmanager')
  stablehlo = optional.require('litert_converter.mlir.dialects.stablehlo')
  api = optional.require('litert_converter.mlir._mlir_libs.converter_api_ext')
  context = ir.Context()
  api.prepare_mlir_context(context)
  with context:
    program = stablehlo.deserialize_portable_artifact(context, module)
    api.set_signature(
      program.operation, SIGNATURE, [INPUT], [source_lib.OUTPUT]
    )
    config = api.ConvertToTFLConfig()
    api.run_convert_to_tfl_passes(program, passes.PassManager(), config)
    return bytes(api.export_flatbuffer_to_bytes(program.operation))


def quantize(path: pathlib.Path, images: np.ndarray, int8: Int8) -> None:
  """Replaces a program by one whose weights are integers of 8 bits.

  Args:
    path: the file that `write` wrote.
    images: raw images of the training split, uint8 `[N, H, W, C]`.
    int8: 'weights': the features stay floats; 'full': they become integers of
      8 bits, too, with the ranges that they have for the images. The inputs and
      outputs of dense layers stay floats, because scores of classes in 8 bits
      would often be equal.
  """
  aeq = optional.require('ai_edge_quantizer', 'int8')
  recipes = optional.require('ai_edge_quantizer.recipe')
  kinds = optional.require('ai_edge_quantizer.qtyping')
  recipe = {
    'weights': recipes.weight_only_wi8_afp32,
    'full': recipes.static_wi8_ai8,
  }[int8]()
  quantizer = aeq.Quantizer(str(path), recipe)
  quantizer.update_quantization_recipe(  # the outputs stay floats
    '.*', kinds.TFLOperationName.OUTPUT, algorithm_key='no_quantize'
  )
  if int8 == 'full':
    quantizer.add_weight_only_config(
      '.*', kinds.TFLOperationName.FULLY_CONNECTED, num_bits=8
    )
  inputs = [{INPUT: image[None]} for image in images]
  # The quantiser draws progress bars. It keeps all features in memory, and the
  # runtime warns of it.
  with (
    contextlib.redirect_stderr(io.StringIO()),
    warnings.catch_warnings(),
  ):
    warnings.simplefilter('ignore', UserWarning)
    ranges = quantizer.calibrate({SIGNATURE: inputs}, num_threads=1)
    result = quantizer.quantize(ranges or None, enable_progress_report=False)
  writing.write(path, bytes(result.quantized_model))


def read(path: str | os.PathLike[str]) -> Run:
  """Returns the function that a file holds, which runs on one thread."""
  litert = optional.require('ai_edge_litert.interpreter', 'the format tflite')
  interpreter = litert.Interpreter(os.fspath(path), num_threads=1)
  interpreter.allocate_tensors()
  image_index = interpreter.get_input_details()[0]['index']
  output_index = interpreter.get_output_details()[0]['index']

  def output(image: Any) -> np.ndarray:
    interpreter.set_tensor(image_index, image[None])
    interpreter.invoke()
    return interpreter.get_tensor(output_index)

  return lambda images: np.concatenate(
    [output(image) for image in np.asarray(images)]
  )
