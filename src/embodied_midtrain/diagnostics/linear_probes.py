"""Linear probes by closed form, all targets at once, tested on episodes that they were not fitted to.

All that a ridge regression or a linear discriminant needs of some rows are sums over them: X^T X, X^T Y, sums by class.
These are taken once a fold; a fit on any of the others is then a sum of sums, and one decomposition of X^T X serves
every target and every penalty. The penalty is the one that does best on the next fold, which then joins the fit.

Regression: ridge. Classes: the linear discriminant with equal priors and a ridge on the covariance within classes: the
total covariance less what lies between the means, a correction of low rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-5, 2))
"""Of the ridge, in units of the mean variance of a feature."""
BLOCK = 8192
"""Rows whose products are summed in float32 before they are added up in float64."""
DRAWS = 1000
Ratio = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Score:
    """How well a probe reads something on episodes that it has not seen.

    Attributes:
        value: R^2 against the mean of the other episodes, or accuracy with all classes weighing the same.
        low, high: 95 % interval, episodes drawn anew.
        parts: the same of each part, where there are several: of the numbers, or of the classes.
    """

    value: float
    low: float
    high: float
    parts: tuple[float, ...]


class LinearProbes:
    """Probes of some features, for any number of targets.

    Args:
        features: [rows, dim], finite; not changed.
        episode: the episode of each row, as a number [rows].
        fold: of each episode, numbered from 0, at least three of them [episodes].
    """

    def __init__(self, features: NDArray[np.float32], episode: NDArray[np.int64], fold: NDArray[np.int64]) -> None:
        order = np.argsort(fold[episode], kind="stable")
        self._order = order
        self._episode = torch.from_numpy(episode[order])
        self._episodes = len(fold)
        ends = np.searchsorted(fold[episode][order], np.arange(fold.max() + 2))
        self._folds = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        rows = torch.from_numpy(features[order])
        mean, scale = _moments(rows)
        self._rows = rows.sub_(mean).div_(scale)
        self._counts = torch.tensor([float(own.stop - own.start) for own in self._folds], dtype=torch.float64)
        self._sums = torch.stack([self._rows[own].sum(0, dtype=torch.float64) for own in self._folds])
        self._products = torch.stack([_product(self._rows[own], self._rows[own]) for own in self._folds])
        every = range(len(self._folds))
        # For each fold: fitted to all but it and the next, by which the penalty is chosen; and to all but it.
        self._choosing = [_Basis(self, [f for f in every if f not in (own, self._next(own))]) for own in every]
        self._fitting = [_Basis(self, [f for f in every if f != own]) for own in every]

    def _next(self, fold: int) -> int:
        return (fold + 1) % len(self._folds)

    def numbers(self, values: NDArray[np.float32], part: NDArray[np.int64], seed: int) -> Score:
        """How well numbers are read: R^2.

        Args:
            values: [rows, columns], none of them constant.
            part: which part a column belongs to [columns].
        """
        labels = torch.from_numpy(np.ascontiguousarray(values[self._order]))
        middle, scale = _moments(labels)
        labels = (labels - middle) / scale
        sums = torch.stack([labels[own].sum(0, dtype=torch.float64) for own in self._folds])
        products = torch.stack([_product(self._rows[own], labels[own]) for own in self._folds])
        squares = torch.stack([labels[own].square().sum(0, dtype=torch.float64) for own in self._folds])
        wrong = torch.zeros(self._episodes, labels.shape[1], dtype=torch.float64)
        plain = torch.zeros_like(wrong)
        for fold, own in enumerate(self._folds):
            basis, other = self._choosing[fold], self._next(fold)
            errors = torch.stack(
                [self._error(*basis.ridge(sums, products, p), other, sums, products, squares) for p in PENALTIES]
            )
            best = torch.tensor(PENALTIES, dtype=torch.float64)[errors.argmin(0)]
            weight, bias = self._fitting[fold].ridge(sums, products, best)
            said = self._rows[own] @ weight.float() + bias.float()
            mean = self._fitting[fold].total(sums) / self._fitting[fold].count
            episode = self._episode[own]
            wrong.index_add_(0, episode, (labels[own] - said).double().square())
            plain.index_add_(0, episode, (labels[own].double() - mean).square())
        groups = torch.from_numpy(np.eye(int(part.max()) + 1)[part])
        # A part's columns weigh as they vary.
        wide = scale.double().square()
        return _score((wrong * wide) @ groups, (plain * wide) @ groups, lambda a, b: 1 - a / b, seed)

    def _error(
        self, weight: Tensor, bias: Tensor, fold: int, sums: Tensor, products: Tensor, squares: Tensor
    ) -> Tensor:
        """Sum of squared errors on a fold, from its sums: [columns]."""
        turned = (weight * (self._products[fold] @ weight)).sum(0) + 2 * bias * (self._sums[fold] @ weight)
        crossed = (weight * products[fold]).sum(0) + bias * sums[fold]
        return squares[fold] - 2 * crossed + turned + self._counts[fold] * bias.square()

    def classes(self, values: NDArray[np.int64], seed: int) -> Score:
        """How well classes are told apart: accuracy, all of them weighing the same.

        Args:
            values: of each row, numbered from 0, each of them there [rows].
        """
        labels = torch.from_numpy(values[self._order])
        which = torch.nn.functional.one_hot(labels)
        counts = torch.stack([which[own].sum(0) for own in self._folds]).double()
        products = torch.stack([_product(self._rows[own], which[own].float()) for own in self._folds])
        right = torch.zeros(self._episodes, counts.shape[1], dtype=torch.float64)
        seen = torch.zeros_like(right)
        for fold, own in enumerate(self._folds):
            other = self._next(fold)
            held = self._folds[other]
            hits = []
            for penalty in PENALTIES:
                told = self._told(self._choosing[fold].discriminant(counts, products, penalty), held)
                there = counts[other] > 0
                hit = ((told == labels[held])[:, None] * which[held]).sum(0).double()
                hits.append(float((hit[there] / counts[other][there]).mean()))
            best = PENALTIES[int(np.argmax(hits))]
            told = self._told(self._fitting[fold].discriminant(counts, products, best), own)
            right.index_add_(0, self._episode[own], ((told == labels[own])[:, None] * which[own]).double())
            seen.index_add_(0, self._episode[own], which[own].double())
        return _score(right, seen, lambda a, b: a / b, seed)

    def _told(self, found: tuple[Tensor, Tensor], own: slice) -> Tensor:
        weight, bias = found
        return (self._rows[own] @ weight.float() + bias.float()).argmax(1)


class _Basis:
    """The sums of some folds, and the directions in which their rows vary."""

    def __init__(self, probes: LinearProbes, folds: Sequence[int]) -> None:
        self._folds = list(folds)
        self.count = float(probes._counts[self._folds].sum())
        self._mean = probes._sums[self._folds].sum(0) / self.count
        covariance = probes._products[self._folds].sum(0) / self.count - torch.outer(self._mean, self._mean)
        values, self._directions = torch.linalg.eigh(covariance)
        self._values = values.clamp_min(0.0)
        self._unit = self._values.mean().clamp_min(1e-12)

    def total(self, sums: Tensor) -> Tensor:
        """Over the folds: [folds, ...] -> [...]."""
        return sums[self._folds].sum(0)

    def _solved(self, right: Tensor, penalty: float | Tensor) -> Tensor:
        """(covariance + penalty)^-1 right: [dim, n]; a penalty, or one a column."""
        wide = self._values[:, None] + self._unit * penalty
        return self._directions @ ((self._directions.T @ right) / wide)

    def ridge(self, sums: Tensor, products: Tensor, penalty: float | Tensor) -> tuple[Tensor, Tensor]:
        """Weights [dim, columns] and biases [columns]."""
        middle = self.total(sums) / self.count
        weight = self._solved(self.total(products) / self.count - torch.outer(self._mean, middle), penalty)
        return weight, middle - self._mean @ weight

    def discriminant(self, counts: Tensor, products: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """Weights [dim, classes] and biases [classes]; a class that is not there is never said."""
        own = self.total(counts)
        means = self.total(products) / own.clamp_min(1)
        between = (means - self._mean[:, None]) * (own / self.count).sqrt()
        # (A - U U^T)^-1 by Woodbury, with A the total covariance and the penalty.
        solved = self._solved(torch.cat([means, between], 1), penalty)
        straight, turned = solved.split(own.shape[0], 1)
        small = torch.eye(own.shape[0], dtype=torch.float64) - between.T @ turned
        weight = straight + turned @ torch.linalg.solve(small, between.T @ straight)
        bias = -0.5 * (means * weight).sum(0)
        return weight, bias.masked_fill(own == 0, -torch.inf)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column; one that hardly varies is left as it is."""
    mean = rows.mean(0, dtype=torch.float64)
    square = sum((block.double() - mean).square().sum(0) for block in rows.split(BLOCK)) / len(rows)
    scale = torch.as_tensor(square).sqrt()
    scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.ones_like(scale))
    return mean.to(rows.dtype), scale.to(rows.dtype)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left^T right in float64, summed in float32 within blocks."""
    found = torch.zeros(left.shape[1], right.shape[1], dtype=torch.float64)
    for a, b in zip(left.split(BLOCK), right.split(BLOCK), strict=True):
        found += a.T @ b
    return found


def _score(above: Tensor, below: Tensor, ratio: Ratio, seed: int) -> Score:
    """From sums by episode and part: the ratio of the sums, its mean over parts, episodes drawn anew."""
    a, b = above.numpy(), below.numpy()
    parts = ratio(a.sum(0), b.sum(0))
    random = np.random.default_rng(seed)
    drawn = random.multinomial(len(a), np.full(len(a), 1 / len(a)), size=DRAWS).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        # A draw may leave a rare class out.
        values = np.nanmean(ratio(drawn @ a, drawn @ b), axis=1)
    low, high = np.quantile(values, [0.025, 0.975])
    return Score(float(parts.mean()), float(low), float(high), tuple(float(p) for p in parts))
