"""Models as ONNX programs, which ONNX Runtime and many other runtimes read."""

import logging
import os
import pathlib
from typing import Any

from jax import export as jax_export
import numpy as np

from jaxdistill.core import optional, writing
from jaxdistill.study.formats import source as source_lib
from jaxdistill.study.formats.source import Run, Source

PACKAGES = ('onnx', 'onnx_ir', 'onnxruntime', 'jax2onnx')
INPUT = 'image'


def write(source: Source, path: pathlib.Path) -> None:
  """Writes a model as a program for raw images in batches of any size.

  Args:
    source: the model.
    path: the file; the variables are in it too.
  """
  jax2onnx = optional.require('jax2onnx', 'the format onnx')
  # It warns of unknown shapes inside loops, which runtimes infer.
  logging.getLogger('onnx_ir.serde').setLevel(logging.ERROR)
  (batch_size,) = jax_export.symbolic_shape('batch')
  traced = source_lib.program(source, batch_size)
  program = jax2onnx.to_onnx(
    traced.function,
    [traced.image],
    input_names=[INPUT],
    output_names=list(traced.outputs),
  )
  _flatten_pools(program.graph)
  # The converter moves transpositions, but notes the shapes from before.
  del program.graph.value_info[:]
  writing.write(path, program.SerializeToString())


def _flatten_pools(graph: Any) -> None:
  """Turns max pools over `[1, 1, B, H, W, C]` into those over `[B, C, H, W]`.

  The converter writes the former, with windows of 1 along B and C. Runtimes
  know pools over at most three axes.

  Args:
    graph: the graph of a program; it is changed.
  """
  helper = optional.require('onnx.helper', 'the format onnx')
  nodes = list(graph.node)
  del graph.node[:]
  for node in nodes:
    settings = {a.name: list(a.ints) for a in node.attribute if a.ints}
    if node.op_type != 'MaxPool' or len(settings['kernel_shape']) != 4:
      graph.node.append(node)
      continue
    flat = {
      key: [value for i, value in enumerate(values) if i % 4 in (1, 2)]
      for key, values in settings.items()
    }
    name, steps = node.output[0], [node.input[0]]
    axes = f'{name}_axes'
    graph.initializer.append(helper.make_tensor(axes, 7, [2], [0, 1]))  # INT64
    for kind, inputs, attributes in (
      ('Squeeze', [axes], {}),
      ('Transpose', [], {'perm': [0, 3, 1, 2]}),
      ('MaxPool', [], flat),
      ('Transpose', [], {'perm': [0, 2, 3, 1]}),
      ('Unsqueeze', [axes], {}),
    ):
      output = name if kind == 'Unsqueeze' else f'{name}_{len(steps)}'
      graph.node.append(
        helper.make_node(kind, [steps[-1], *inputs], [output], **attributes)
      )
      steps.append(output)


def read(path: str | os.PathLike[str]) -> Run:
  """Returns the function that a file holds, which runs on one thread."""
  runtime = optional.require('onnxruntime', 'the format onnx')
  options = runtime.SessionOptions()
  options.intra_op_num_threads = options.inter_op_num_threads = 1
  options.log_severity_level = 3  # no warnings about unused constants
  session = runtime.InferenceSession(
    os.fspath(path), options, providers=['CPUExecutionProvider']
  )
  names = [output.name for output in session.get_outputs()]

  def run(images: Any) -> Any:
    outputs = dict(zip(names, session.run(None, {INPUT: np.asarray(images)})))
    return outputs.get(source_lib.OUTPUT, outputs)

  return run
