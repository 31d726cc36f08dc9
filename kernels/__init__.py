"""GPU kernels in Triton, one operation a file; imported as ``tensorfast.kernels``."""

if __name__ != "tensorfast.kernels":
    raise ImportError(
        f"{__name__}: this is the folder of tensorfast's GPU kernels ({__file__}); "
        "import it as tensorfast.kernels. If another package of this name was meant, "
        "start Python outside tensorfast's source tree."
    )
