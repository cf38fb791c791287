"""From scores to a selection: the best K, under caps and floors per source, or a draw in proportion to a ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def top_k(
    scores: NDArray[np.float32],
    k: int,
    *,
    codes: NDArray[np.uint16] | None = None,
    caps: NDArray[np.int64] | None = None,
    floors: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Places of the K highest scores, from the highest on; equal scores in the order of their places.

    Exact, and without sorting what is not chosen: memory is two copies of the scores.

    Args:
        scores: [n]; those that are no number are never chosen.
        codes: number of each row's source [n]; needed for caps and floors.
        caps: at most so many of each source [sources].
        floors: at least so many of each source, as far as it has them [sources].

    Returns:
        fewer than K where caps or scores that are no number leave fewer.
    """
    able = np.isfinite(scores)
    forced = np.zeros(len(scores), bool)
    if floors is not None:
        assert codes is not None
        for source in np.flatnonzero(floors):
            forced |= _best(scores, able & (codes == source), int(floors[source]))
        if int(forced.sum()) > k:
            raise ValueError(f"the floors ask for {int(forced.sum())} samples, more than K = {k}")
    able &= ~forced
    rest = k - int(forced.sum())
    chosen = _best(scores, able, rest)
    while caps is not None:
        assert codes is not None
        had = np.bincount(codes[forced], minlength=len(caps))
        counts = np.bincount(codes[chosen], minlength=len(caps)) + had
        over = np.flatnonzero((counts > caps) & (counts > had))
        if not len(over):
            break
        for source in over:
            own = able & (codes == source)
            # Only the best of a source that has too many stay in the running; what it loses goes to the others.
            able &= ~own | _best(scores, own, max(0, int(caps[source] - had[source])))
        chosen = _best(scores, able, rest)
    places = np.flatnonzero(chosen | forced)
    return places[np.lexsort((places, -scores[places].astype(np.float64)))]


def _best(scores: NDArray[np.float32], among: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """The k highest scores of those that are marked, the first ones of equal scores."""
    values = scores[among]
    if len(values) <= k:
        return among.copy()
    if k <= 0:
        return np.zeros(len(scores), bool)
    values.partition(len(values) - k)
    limit = values[len(values) - k]
    del values
    chosen = among & (scores > limit)
    ties = np.flatnonzero(among & (scores == limit))
    chosen[ties[: k - int(chosen.sum())]] = True
    return chosen


def gumbel(log_ratios: NDArray[np.float32], *, temperature: float, seed: int) -> NDArray[np.float32]:
    """Scores whose highest K are a draw of K without replacement in proportion to ratio ** (1 / temperature).

    (DSIR, arXiv 2302.03169; the Gumbel top-K trick.) A hard cut takes near-copies of the very closest; a draw spreads.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    rng = np.random.default_rng(seed)
    found: NDArray[np.float32] = log_ratios / np.float32(temperature)
    # Block by block: the same numbers, without as much memory again.
    for at in range(0, len(found), 1 << 20):
        part = found[at : at + (1 << 20)]
        part += rng.gumbel(size=len(part)).astype(np.float32)
    return found


def ranks(scores: NDArray[np.float32]) -> NDArray[np.integer]:
    """Rank of each score from 0, the highest; equal scores in the order of their places, no numbers last."""
    order = np.argsort(-scores, kind="stable")
    kind = np.int32 if len(scores) < 1 << 31 else np.int64
    found: NDArray[np.integer] = np.empty(len(scores), kind)
    found[order] = np.arange(len(scores), dtype=kind)
    return found
