"""`emt compare`: what several selectors make of one pool: all scores and ranks in one table, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError, atomic_path, open_stage, read_json, write_json
from embodied_midtrain.features.store import open_features
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.proximity.aligning import in_order, names_of
from embodied_midtrain.proximity.select import read_selection

BATCH = 65_536


@dataclass(frozen=True)
class Agreement:
    """How far selectors agree.

    Attributes:
        names: of the selections.
        spearman: rank correlation over the samples that both rank: [n, n].
        overlap: share of the smaller selection that is in the other too: [n, n].
        by_chance: what two random selections of these sizes would share: [n, n].
    """

    names: list[str]
    spearman: list[list[float]]
    overlap: list[list[float]]
    by_chance: list[list[float]]


def compare(out: Path, *, pool: Artifact, selections: Mapping[str, Artifact], overwrite: bool = False) -> Artifact:
    """Put selections of one pool side by side.

    The artifact holds `selectors.parquet` (source, id, and NAME.score, NAME.rank, NAME.kept of each selection, in the
    pool's order) and `agreement.json`. Memory: the keys of the selections, and one block.

    Args:
        pool: the features that the selections were made from.

    Raises:
        StageError: on fewer than two selections, or one of another pool.
    """
    if len(selections) < 2:
        raise StageError("give at least two selections to compare")
    for name, selection in selections.items():
        if selection.manifest["inputs"].get("pool") != pool.fingerprint:
            raise StageError(f"the selection {name} ({selection.path}) was not made from the features {pool.path}")
    inputs: dict[str, Artifact | str] = {"pool": pool, **{f"selection {n}": s for n, s in selections.items()}}
    with open_stage(out, "compare", {"names": list(selections)}, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        kept = [set(read_selection(selection)) for selection in selections.values()]
        store = open_features(pool)
        sums = _Sums(len(selections), store.rows)
        with (
            atomic_path(run.file("selectors.parquet")) as path,
            pq.ParquetWriter(path, _schema(list(selections)), write_statistics=False) as writer,
            progress_bar("compare", store.rows) as bar,
        ):
            columns = [in_order(_rows(s), names_of(store)) for s in selections.values()]
            for (sources, ids), *found in zip(names_of(store), *columns, strict=True):
                sums.add(np.stack([values[:, 1] for values in found], 1))
                chosen = [[key in one for key in zip(sources, ids, strict=True)] for one in kept]
                writer.write_table(_table(list(selections), sources, ids, found, chosen))
                bar.advance(len(ids))
        agreement = _agreement(list(selections), sums, kept, store.rows)
        write_json(run.file("agreement.json"), agreement)
        return run.finish({"samples": store.rows})


def _rows(selection: Artifact) -> Iterator[tuple[list[str], list[str], NDArray[np.floating]]]:
    with pq.ParquetFile(selection.file("scores.parquet")) as file:
        for batch in file.iter_batches(BATCH):
            values = np.stack([batch[name].to_numpy().astype(np.float64) for name in ("score", "rank")], 1)
            yield batch["source"].to_pylist(), batch["id"].to_pylist(), values


def _schema(names: list[str]) -> pa.Schema:
    fields = [("source", pa.string()), ("id", pa.string())]
    for name in names:
        fields += [(f"{name}.score", pa.float32()), (f"{name}.rank", pa.int64()), (f"{name}.kept", pa.bool_())]
    return pa.schema(fields)


def _table(
    names: list[str],
    sources: list[str],
    ids: list[str],
    found: list[NDArray[np.float64]],
    chosen: list[list[bool]],
) -> pa.Table:
    columns: list[Any] = [sources, ids]
    for values, own in zip(found, chosen, strict=True):
        missing = np.isnan(values[:, 1])
        columns += [
            pa.array(values[:, 0].astype(np.float32), mask=missing),
            pa.array(np.where(missing, 0, values[:, 1]).astype(np.int64), mask=missing),
            own,
        ]
    return pa.table(columns, schema=_schema(names))


class _Sums:
    """Of ranks and their products over the rows that two selectors both rank."""

    def __init__(self, count: int, rows: int) -> None:
        self._middle = rows / 2
        self._both, self._of, self._squares, self._products = (np.zeros((count, count)) for _ in range(4))

    def add(self, ranks: NDArray[np.float64]) -> None:
        there = np.isfinite(ranks).astype(np.float64)
        # From the middle, so that squares of many millions keep their digits.
        centred = np.where(there > 0, ranks - self._middle, 0.0)
        self._both += there.T @ there
        self._of += centred.T @ there
        self._squares += (centred**2).T @ there
        self._products += centred.T @ centred

    def correlations(self) -> NDArray[np.float64]:
        n = np.maximum(self._both, 1)
        spread = self._squares / n - (self._of / n) ** 2
        together = self._products / n - (self._of / n) * (self._of.T / n)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: NDArray[np.float64] = together / np.sqrt(spread * spread.T)
        return found


def _agreement(names: list[str], sums: _Sums, kept: list[set[tuple[str, str]]], rows: int) -> Agreement:
    sizes = [len(one) for one in kept]
    overlap = [[len(a & b) / min(len(a), len(b)) for b in kept] for a in kept]
    chance = [[max(a, b) / rows if i != j else 1.0 for j, b in enumerate(sizes)] for i, a in enumerate(sizes)]
    return Agreement(names, sums.correlations().tolist(), overlap, chance)


def compare_command(out: Path, pool: Path, selections: tuple[Path, ...], overwrite: bool = False) -> None:
    """Scores and ranks of several selections of one pool in one table, and how far they agree.

    Examples:
        emt compare --pool runs/quickstart/features/pool --out runs/mine/compared \\
            --selections runs/quickstart/select/estimator runs/quickstart/select/random

    Args:
        out: folder for the table and the agreement.
        pool: features of the pool (an 'emt embed' folder).
        selections: 'emt select' folders; each is called by its folder's name.
        overwrite: replace a result that was made from other selections.
    """
    named = {path.name: Artifact.open(path, "select") for path in selections}
    if len(named) < len(selections):
        raise StageError("two selections lie in folders of one name, and could not be told apart; rename one")
    artifact = compare(out, pool=Artifact.open(pool, "embed"), selections=named, overwrite=overwrite)
    facts = read_json(artifact.file("agreement.json"))
    for title, key in (("rank correlation", "spearman"), ("share of the selection in common", "overlap")):
        print(f"{title}:")
        print(" " * 24 + "".join(f"{name[:11]:>12}" for name in facts["names"]))
        for name, row in zip(facts["names"], facts[key], strict=True):
            print(f"{name:<24}" + "".join(f"{value:>12.2f}" for value in row))
