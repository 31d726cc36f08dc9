"""The tables of ``docs/kernels.md`` are those of the kernels as they are."""

import pytest
import triton

from bench import kernel_table


def test_the_page_is_up_to_date():
    page = kernel_table.PAGE.read_text(encoding="utf-8")
    if f"\nTriton {triton.__version__}\n" not in page:
        pytest.skip(f"made with another version than this, {triton.__version__}")
    assert kernel_table.written() == page, "python -m bench.kernel_table brings it up to date"
