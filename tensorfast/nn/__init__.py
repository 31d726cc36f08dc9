"""What decompositions do for neural networks."""

from .batchnorm import fold_batchnorm, recalibrate_batchnorm
from .compression import Choice, Compressed, compress
from .correction import match_outputs
from .decompose import decompose_conv, decompose_linear
from .ranks import suggest_rank
from .report import LayerReport, NetworkReport, Range, conv_report
from .uniformity import (
    SpectralUniformityLoss,
    effective_rank,
    spectral_uniformity_loss,
    spectrum,
)

__all__ = [
    "Choice",
    "Compressed",
    "LayerReport",
    "NetworkReport",
    "Range",
    "SpectralUniformityLoss",
    "compress",
    "conv_report",
    "decompose_conv",
    "decompose_linear",
    "effective_rank",
    "fold_batchnorm",
    "match_outputs",
    "recalibrate_batchnorm",
    "spectral_uniformity_loss",
    "spectrum",
    "suggest_rank",
]
