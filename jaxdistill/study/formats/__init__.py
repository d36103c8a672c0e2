"""Formats of exported files, one file each, and the table of them.

source.py: what a file is made from.
onnx.py, tflite.py: programs for other runtimes; stablehlo.py, one package
  above, holds programs for JAX.
table.py: the formats by name.
measurements.py: scores and latency of a file that has been written.
card.py: what a user should read before using a file.
"""
