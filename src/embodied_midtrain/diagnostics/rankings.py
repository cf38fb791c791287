"""Rankings of the same pool against each other, over rows that were drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError
from embodied_midtrain.features.store import FeatureTable
from embodied_midtrain.proximity.ranking import agreement_within, spearman


@dataclass(frozen=True)
class Ranking:
    """How far a ranking agrees with the one that is audited (Spearman).

    Attributes:
        overall: over all sources.
        within: mean over samples of the agreement inside each source, where "it is another kind of source" cannot
            help.
    """

    overall: float | None
    within: float | None


def agreement(sources: NDArray[np.str_], first: NDArray[np.float32], second: NDArray[np.float32]) -> Ranking:
    """Of two rankings of the same rows; NaN where a row is in one of them only."""
    known = np.isfinite(first) & np.isfinite(second)
    if int(known.sum()) < 2:
        return Ranking(None, None)
    sources, first, second = sources[known], first[known], second[known]
    inside = {name: value for name, value in agreement_within(sources, first, second).items() if np.isfinite(value)}
    sizes = np.array([(sources == name).sum() for name in inside], float)
    within = float(np.average(list(inside.values()), weights=sizes)) if inside else None
    overall = spearman(first, second)
    return Ranking(overall if np.isfinite(overall) else None, within)


def read_scores(selection: Artifact, rows: FeatureTable) -> NDArray[np.float32]:
    """The scores that a selection's artifact gives these rows: [n], NaN where it has none.

    Raises:
        StageError: where it scores none of them: it is of another pool.
    """
    place = {key: n for n, key in enumerate(zip(rows.sources.tolist(), rows.ids.tolist(), strict=True))}
    ids = pa.array(sorted({id for _, id in place}))
    found = np.full(len(rows), np.nan, np.float32)
    with pq.ParquetFile(selection.file("scores.parquet")) as file:
        for batch in file.iter_batches(1 << 18, columns=["source", "id", "score"]):
            near = batch.filter(pc.is_in(batch["id"], value_set=ids))
            columns = (near[name].to_pylist() for name in ("source", "id", "score"))
            for source, id, score in zip(*columns, strict=True):
                if (source, id) in place:
                    found[place[source, id]] = score
    if not np.isfinite(found).any():
        raise StageError(f"{selection.path} scores none of these samples; give a selection from the same pool.")
    return found
