"""Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, section 3), in one pass over batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class LinearCka:
    """How alike two models' features of the same rows are: 1 where one is a rotation and scaling of the other.

    CKA = |Y'X|^2 / (|X'X| |Y'Y|), Frobenius norms, of centred features X [n, p] and Y [n, q] (equation 4). The products
    are sums over rows, so that any number of batches gives the value of all rows at once; memory is p² + pq + q².
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sums: tuple[Tensor, Tensor] | None = None
        self._xx = self._xy = self._yy = torch.zeros(0)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Some rows: [n, p] and [n, q].

        Raises:
            ValueError: on different numbers of rows.
        """
        if len(x) != len(y):
            raise ValueError(f"{len(x)} rows of one model, {len(y)} of the other")
        x, y = x.double(), y.double()
        if self._sums is None:
            # Sums of squares of far-off values lose digits; what is centred by a first guess does not.
            self._guess = x.mean(0), y.mean(0)
            self._sums = torch.zeros_like(x[0]), torch.zeros_like(y[0])
            self._xx, self._xy, self._yy = x.new_zeros(()), x.new_zeros(()), x.new_zeros(())
        x, y = x - self._guess[0], y - self._guess[1]
        self.rows += len(x)
        self._sums = self._sums[0] + x.sum(0), self._sums[1] + y.sum(0)
        self._xx, self._xy, self._yy = self._xx + x.T @ x, self._xy + y.T @ x, self._yy + y.T @ y

    def value(self) -> float:
        """In [0, 1]; NaN where there are fewer than two rows, or one model says the same of all."""
        if self._sums is None or self.rows < 2:
            return math.nan
        x, y = self._sums
        shared = (self._xy - torch.outer(y, x) / self.rows).square().sum()
        own = [
            (product - torch.outer(total, total) / self.rows).norm()
            for product, total in ((self._xx, x), (self._yy, y))
        ]
        scale = float(own[0] * own[1])
        return float(shared) / scale if scale > 0 else math.nan
