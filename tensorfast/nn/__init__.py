"""What decompositions do for neural networks."""

from .uniformity import (
    SpectralUniformityLoss,
    effective_rank,
    spectral_uniformity_loss,
    spectrum,
)

__all__ = [
    "SpectralUniformityLoss",
    "effective_rank",
    "spectral_uniformity_loss",
    "spectrum",
]
