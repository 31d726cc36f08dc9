"""What is remembered of layouts."""

import torch

from tensorfast.ops import _shared


def test_what_is_known_may_be_cleared_by_another_thread_at_any_time():
    looks = []

    class Rank(int):
        """One that others look at whenever it is looked up."""

        def __hash__(self):
            looks.append(self)
            if len(looks) > 2:
                for size in range(2 * _shared.REMEMBERED):
                    twice(torch.empty(size), 0)
            return int(self)

    @_shared.by_layout
    def twice(x, rank):
        return 2 * rank

    x = torch.empty(3)
    assert twice(x, Rank(4)) == 8
    for _ in range(5):
        assert twice(x, Rank(4)) == 8
    assert len(looks) > 2


def test_a_layout_is_looked_at_once():
    seen = []

    @_shared.by_layout
    def shape(x, rank):
        seen.append(x.dtype)
        return

    for dtype in (torch.float32, torch.float64, torch.float32):
        for x in (torch.empty(3, 4, dtype=dtype), torch.empty(4, 3, dtype=dtype).t()):
            assert shape(x, 2) is None
    assert seen == [torch.float32] * 2 + [torch.float64] * 2
