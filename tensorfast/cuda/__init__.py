"""CUDA C++ kernels, compiled on the user's machine by NVRTC: the extra ``tensorfast[cuda]``.

The sources are those of ``csrc/cuda/``, shipped as text. `sources` reads them, `compiler` makes
machine code of them, `store` keeps that on disk. Nothing of it is loaded with
``import tensorfast``, and nothing needs a GPU but a launch.
"""
