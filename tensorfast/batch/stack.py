"""Tensors of one shape under one index, wherever they lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Stack"]


class Stack:
    """The tensors that the first ``dims`` axes of ``x`` index, the last of these fastest.

    Nothing is copied but a part that is asked for, where the axes cannot be walked as one.
    """

    def __init__(self, x: Tensor, dims: int) -> None:
        self.x = x
        self.batch, self.shape = tuple(x.shape[:dims]), tuple(x.shape[dims:])
        self.dtype = x.dtype
        self._size = math.prod(self.batch)
        try:
            self._flat: Tensor | None = x.view(self._size, *self.shape)
        except RuntimeError:
            self._flat = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> Tensor:
        if self._flat is not None:
            return self._flat[part]
        every = itertools.product(*map(range, self.batch))
        chosen = itertools.islice(every, *part.indices(self._size))
        return torch.stack([self.x[index] for index in chosen])

    def parts(self, elements: int, rank: int = 1) -> Iterator[slice]:
        """Cut the stack into parts of about so many elements, of one tensor at least.

        Partial results of this rank count where they are larger than the tensors.
        """
        numel = math.prod(self.shape)
        step = max(1, elements // max(numel, numel // min(self.shape) * rank))
        for start in range(0, self._size, step):
            yield slice(start, min(start + step, self._size))
