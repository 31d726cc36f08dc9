"""What the tests of the operations share as fixtures."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tensorfast.testing import poisoned_memory

from . import common

TORCH_LAYOUTS = (common.permuted, common.rotated, common.sliced, common.expanded)
OTHER_LAYOUTS = (
    common.negative,
    common.read_only,
    common.big_endian,
    common.between_elements,
    common.jax_array,
)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nobody has written to is NaN."""
    with poisoned_memory():
        yield


@pytest.fixture(params=[*TORCH_LAYOUTS, *OTHER_LAYOUTS], ids=lambda f: f.__name__)
def layout(request: pytest.FixtureRequest) -> Callable[[torch.Tensor], Any]:
    """Each way to lay out a float32 tensor other than C order."""
    return request.param


@pytest.fixture(params=TORCH_LAYOUTS, ids=lambda f: f.__name__)
def torch_layout(request: pytest.FixtureRequest) -> Callable[[torch.Tensor], torch.Tensor]:
    return request.param
