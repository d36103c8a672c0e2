"""Dense convolutions, each direction by oneDNN or XLA, whichever is faster.

`benchmarks/convolutions.py` compares them for the shapes of many networks. On a
processor with AVX2, oneDNN takes 0.2 (3 channels) to 0.95 of XLA's time for the
output, and as much for the gradient of the image at stride 1. For the gradient
of the image at larger strides and for that of the kernel, oneDNN has no call,
and formulations by its convolution and its matrix product took 0.75 to 1.2 and
0.95 to 1.4 of XLA's time.
"""

from jaxdistill.core.types import Array
from jaxdistill.networks.layers import bilinear, onednn, xla


def _image_grad(
  grad: Array, kernel: Array, *, stride: int, height: int, width: int
) -> Array:
  if stride == 1:
    return onednn.image_grad(grad, kernel)
  return xla.image_grad(grad, kernel, stride=stride, height=height, width=width)


convolve = bilinear.convolution(
  'dense', onednn.convolve, _image_grad, xla.kernel_grad
)
