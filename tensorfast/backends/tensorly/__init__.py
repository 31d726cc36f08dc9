"""A backend for TensorLy's tensor algebra: existing code faster by one line.

``tensorfast.backends.tensorly.set_backend()``, and `parafac`, `non_negative_parafac_hals`,
`constrained_parafac`, `tucker`, the regressors and tensorly-torch run on tensorfast's kernels.
"""

try:
    import tensorly as _tensorly  # noqa: F401
except ImportError as error:
    raise ImportError(
        "tensorfast.backends.tensorly: TensorLy is not installed; expected version 0.9 or later; "
        "pip install tensorly"
    ) from error

from .registration import active, register, set_backend
from .sharing import reused
from .svd import svd

__all__ = ["active", "register", "reused", "set_backend", "svd"]
