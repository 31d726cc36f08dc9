"""What decompositions do for neural networks."""

from .decompose import decompose_conv, decompose_linear
from .ranks import suggest_rank
from .uniformity import (
    SpectralUniformityLoss,
    effective_rank,
    spectral_uniformity_loss,
    spectrum,
)

__all__ = [
    "SpectralUniformityLoss",
    "decompose_conv",
    "decompose_linear",
    "effective_rank",
    "spectral_uniformity_loss",
    "spectrum",
    "suggest_rank",
]
