"""Files of weights, in safetensors and in the names of other libraries."""
