"""Which samples of a step go through the model together, as windows without padding.

The plan looks at one step at a time (its buffer are the step's samples), so its memory does not grow with the data,
and it is a function of the lengths alone: every process makes the same plan, and a resumed run needs no state of it.
What a step learns does not depend on it: a step holds the same samples however they are packed.
"""

from __future__ import annotations

from collections.abc import Sequence


def windows(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Numbers of samples by window: the longest first, each into the fullest window that it still fits into.

    No sample is cut. One that is longer than `limit` gets a window of its own; whoever wants none leaves it out before.

    Raises:
        ValueError: where `limit` is below 1.
    """
    if limit < 1:
        raise ValueError(f"a window of {limit} tokens holds nothing; give at least 1")
    bins: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        fitting = [at for at, free in enumerate(room) if free >= lengths[number]]
        if fitting:
            at = min(fitting, key=lambda at: (room[at], at))
            bins[at].append(number)
            room[at] -= lengths[number]
        else:
            bins.append([number])
            room.append(limit - lengths[number])
    return bins


def shared(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Numbers of samples by process, about as many tokens for each: the longest first, to who has least.

    With one process the samples stay in their order.

    Raises:
        ValueError: where there are fewer samples than processes.
    """
    if len(lengths) < ranks:
        raise ValueError(f"{len(lengths)} samples a step are too few for {ranks} processes; raise batch")
    if ranks == 1:
        return [list(range(len(lengths)))]
    shares: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        rank = min(range(ranks), key=lambda r: (load[r], r))
        shares[rank].append(number)
        load[rank] += lengths[number]
    return [sorted(share) for share in shares]


def micro_batches(lengths: Sequence[int], *, ranks: int, micro_batch: int, window: int | None) -> list[list[list[int]]]:
    """Numbers of samples by process and micro-batch; every process has equally many micro-batches, some maybe empty.

    Args:
        micro_batch: most samples of a padded micro-batch.
        window: most tokens of a packed one; None: micro-batches are padded.
    """
    plans: list[list[list[int]]] = []
    for share in shared(lengths, ranks):
        if window is None:
            plans.append([share[at : at + micro_batch] for at in range(0, len(share), micro_batch)])
        else:
            packed = windows([lengths[n] for n in share], window)
            plans.append([[share[n] for n in part] for part in packed])
    most = max(len(plan) for plan in plans)
    return [plan + [[] for _ in range(most - len(plan))] for plan in plans]
