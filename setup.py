"""Which packages there are, and where they lie; all the rest is in pyproject.toml."""

from setuptools import setup

setup(
    packages=[
        "tensorfast",
        "tensorfast.ahead",
        "tensorfast.backends",
        "tensorfast.backends.tensorly",
        "tensorfast.batch",
        "tensorfast.cp",
        "tensorfast.cp.batch",
        "tensorfast.cuda",
        "tensorfast.cuda.sources",
        "tensorfast.tucker",
        "tensorfast.tucker.batch",
        "tensorfast.kernels",
        "tensorfast.nn",
        "tensorfast.ops",
    ],
    package_dir={"tensorfast.kernels": "kernels", "tensorfast.cuda.sources": "csrc/cuda"},
    package_data={
        "tensorfast": ["py.typed"],
        "tensorfast.kernels": ["tuned/*.json"],
        "tensorfast.cuda.sources": ["*.cu", "*.cuh"],
    },
    include_package_data=False,
    # Triton reads the source text of its kernels, so they have to be files.
    zip_safe=False,
)
