"""Frozen teachers in their fast form: what a step of recovery asks of a network, with each map read once each way.

- `convolution`: convolutions that keep no input; `geometry`, their weights as the machine wants them; `stem`, the
  gradient of the first.
- `normalisation`: BatchNorm, residual, activation and statistics as one function.
- `tracing`: finds these in any convolutional network.
"""

from fadrm_hf.networks.fused.tracing import Coverage as Coverage
from fadrm_hf.networks.fused.tracing import coverage as coverage
from fadrm_hf.networks.fused.tracing import freeze as freeze
