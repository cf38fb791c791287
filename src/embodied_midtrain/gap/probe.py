"""How well a linear probe tells two sides apart on what it was not fitted to; the proxy A-distance.

Ben-David et al., "A theory of learning from different domains" (2010): 2 (1 - 2 error). 0 where the sides look alike,
2 where they are told apart without a mistake.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embodied_midtrain.features.scaling import balanced_scale
from embodied_midtrain.features.splits import folds

RIDGE = 1e-2
"""Weight of the squared weights beside the mean loss: rows may be fewer than dimensions."""


@dataclass(frozen=True)
class Probe:
    """What a cross-validated probe found.

    Attributes:
        accuracy: balanced over the two sides, on held-out rows.
        spread: standard deviation of the folds' accuracies.
        pool, target: log-odds of each row by the fold that did not see it, positive for the target [n], [m].
    """

    accuracy: float
    spread: float
    pool: NDArray[np.float32]
    target: NDArray[np.float32]

    @property
    def a_distance(self) -> float:
        """2 (1 - 2 error); a probe worse than chance counts as chance."""
        return max(0.0, 2.0 * (1.0 - 2.0 * (1.0 - self.accuracy)))


def cross_validated(
    pool: NDArray[np.float32],
    target: NDArray[np.float32],
    *,
    episodes: NDArray[np.str_],
    pictures: NDArray[np.str_] | None = None,
    count: int = 5,
    seed: int = 0,
) -> Probe:
    """Fit on all folds but one, look at that one, in turn.

    Args:
        pool, target: [n, dim] and [m, dim].
        episodes: of each target row [m]; the frames of one are never on both sides of a split.
        pictures: of each pool row [n], where questions about one picture are to stay together.
        count: folds.

    Raises:
        ValueError: where a side has fewer rows than folds.
    """
    if min(len(pool), len(target)) < count:
        raise ValueError(f"{count} folds need at least {count} rows on each side, not {len(pool)} and {len(target)}")
    rng = np.random.default_rng(seed)
    names = np.arange(len(pool)).astype(str) if pictures is None else pictures
    fold_pool, fold_target = folds(names, count, rng), folds(episodes, count, rng)
    out_pool, out_target = np.zeros(len(pool), np.float32), np.zeros(len(target), np.float32)
    accuracies = []
    for fold in range(count):
        in_pool, in_target = fold_pool != fold, fold_target != fold
        if in_pool.all() or in_target.all():
            continue
        weight, bias = fit_linear(pool[in_pool], target[in_target])
        out_pool[~in_pool] = pool[~in_pool] @ weight + bias
        out_target[~in_target] = target[~in_target] @ weight + bias
        right = ((out_pool[~in_pool] < 0).mean(), (out_target[~in_target] > 0).mean())
        accuracies.append(sum(right) / 2)
    # Log-odds of exactly nothing say neither: a side that cannot be told counts half.
    sides = [(_share(out_pool, -1), len(out_pool)), (_share(out_target, 1), len(out_target))]
    return Probe(sum(share for share, _ in sides) / 2, float(np.std(accuracies)), out_pool, out_target)


def _share(odds: NDArray[np.float32], sign: int) -> float:
    return float((sign * odds > 0).mean() + (odds == 0).mean() / 2)


def fit_linear(negative: NDArray[np.float32], positive: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Ridge logistic regression on standardised rows, both sides weighing the same: weights [dim] and bias for rows
    as they are."""
    mean, std = balanced_scale(negative, positive)
    rows = torch.from_numpy((np.concatenate([negative, positive]) - mean) / std)
    sign = torch.cat([-torch.ones(len(negative)), torch.ones(len(positive))])
    share = torch.cat([torch.full((len(side),), 0.5 / len(side)) for side in (negative, positive)])
    weight = torch.zeros(rows.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=60, history_size=8, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        odds = rows @ weight[:-1] + weight[-1]
        value = (share * torch.nn.functional.softplus(-sign * odds)).sum() + RIDGE * weight[:-1].square().sum() / 2
        value.backward()
        return value

    optimiser.step(loss)
    found = weight.detach().double().numpy()
    folded = found[:-1] / std
    return folded.astype(np.float32), float(found[-1] - mean @ folded)
