"""Dense convolutions, each direction by oneDNN or XLA, whichever is faster.

For 3x3 kernels on a processor with AVX2, oneDNN takes 0.2 (3 channels) to 1.0
of XLA's time for the output, and 0.6 to 0.9 for the gradient of the image where
the stride is 1. The other gradients can be written as its convolution or matrix
product, which gains nothing on balance: 0.8 to 1.1 for the image where the
stride is 2, and 1.0 to 1.4 for the kernel. RESULTS.md has the table, and
`benchmarks/convolutions.py` measures it.
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
  'dense', onednn.convolve, _image_grad, xla.kernel_grad, loops=True
)
