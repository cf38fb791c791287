"""`emt neighbours`: the robot frames nearest to a sample, or the samples nearest to a frame.

Exact search in one pass over the store, block by block: a store of 100 M rows is read once, which costs more than
comparing it with some queries does, so an approximate index (faiss) would not be quicker. Distances are between
features as they are.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, StageError, atomic_path, to_plain, write_json
from embodied_midtrain.features.drawing import take_rows
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.features.store import FeatureStore, FeatureTable, open_features
from embodied_midtrain.gap.mmd import squared_distances
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.training.loop import pick_device

Key = tuple[str, str]
SHOWN = 3
"""Near matches that an error names for an id that is not there."""


@dataclass(frozen=True)
class Neighbours:
    """What is nearest to one row.

    Attributes:
        query: (source, id); of a frame: (task, "episode/frame").
        keys: (source, id) from the nearest on.
        distances: Euclidean, of each.
    """

    query: Key
    keys: list[Key]
    distances: list[float]


def find_rows(store: FeatureStore, wanted: Sequence[str]) -> FeatureTable:
    """Rows of a store by "source/id", or by the id alone where it is of one source only.

    Raises:
        StageError: where one is not there, with the nearest that are, or an id is of several sources.
    """
    places: dict[str, list[int]] = {name: [] for name in wanted}
    # What a name may mean: the id itself, or what follows each of its slashes.
    ends = {name[cut:] for name in wanted for cut in [0, *(n + 1 for n, letter in enumerate(name) if letter == "/")]}
    first = 0
    for shard in store.shards:
        source, id = shard.keys()
        for row in np.flatnonzero(
            pc.is_in(id, value_set=pa.array(sorted(ends))).to_numpy(zero_copy_only=False)
        ).tolist():
            whole = f"{source[row].as_py()}/{id[row].as_py()}"
            for name in {whole, id[row].as_py()} & places.keys():
                places[name].append(first + row)
        first += shard.rows
    for name, found in places.items():
        if not found:
            near = _near(store, name)
            raise StageError(
                f"{name!r} is not in {store.path}; give SOURCE/ID"
                + (f", such as one of these: {', '.join(near)}" if near else "")
            )
        if len(found) > 1:
            raise StageError(f"{name!r} is in {store.path} {len(found)} times; give it as SOURCE/ID")
    order = sorted(wanted, key=lambda name: places[name][0])
    table = take_rows(store, np.unique([places[name][0] for name in order]))
    at = {place: n for n, place in enumerate(sorted({found[0] for found in places.values()}))}
    rows = np.array([at[places[name][0]] for name in wanted])
    return table.at(rows)


def _near(store: FeatureStore, name: str) -> list[str]:
    """Names that look like it, best first; the best of each shard, so that memory does not grow with the store."""
    found: list[str] = []
    for shard in store.shards:
        source, id = shard.keys()
        names = pc.binary_join_element_wise(source, id, "/").to_pylist()
        found = difflib.get_close_matches(name, [*found, *names], n=SHOWN, cutoff=0.6)
    return found


def nearest(queries: FeatureTable, store: FeatureStore, k: int, *, device: str = "auto") -> list[Neighbours]:
    """The k rows of a store that are nearest to each query; rows that are not finite are never near.

    Raises:
        ValueError: on k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; at least one neighbour can be found")
    on = pick_device(device)
    # Distances from a common origin near the rows cancel less.
    centre = torch.from_numpy(queries.features.mean(0)).to(on)
    asked = torch.from_numpy(queries.features).to(on) - centre
    best = torch.full((len(queries), 0), torch.inf, device=on)
    places = torch.zeros((len(queries), 0), dtype=torch.long, device=on)
    first = 0
    with progress_bar("compare", store.rows) as bar:
        for block in store.blocks():
            rows = torch.from_numpy(np.asarray(block, np.float32)).to(on) - centre
            found = squared_distances(asked, rows)
            found.masked_fill_(~rows.isfinite().all(1), torch.inf)
            own = torch.arange(first, first + len(block), device=on).expand(len(queries), -1)
            best, chosen = torch.cat([best, found], 1).topk(min(k, best.shape[1] + len(block)), dim=1, largest=False)
            places = torch.cat([places, own], 1).gather(1, chosen)
            first += len(block)
            bar.advance(len(block))
    return _named(queries, store, places.cpu().numpy(), best.cpu().numpy())


def _named(
    queries: FeatureTable, store: FeatureStore, places: NDArray[np.int64], squared: NDArray[np.float32]
) -> list[Neighbours]:
    unique = np.unique(places)
    table = take_rows(store, unique)
    answers = []
    for n in range(len(queries)):
        rows = np.searchsorted(unique, places[n])
        # The product's rounding is as large as small distances are: these few are computed again, and sorted by it.
        exact = np.linalg.norm(table.features[rows].astype(np.float64) - queries.features[n], axis=1)
        order = [i for i in np.lexsort((places[n], exact)).tolist() if np.isfinite(squared[n, i])]
        keys = [(str(table.sources[rows[i]]), str(table.ids[rows[i]])) for i in order]
        answers.append(Neighbours((str(queries.sources[n]), str(queries.ids[n])), keys, exact[order].tolist()))
    return answers


def write_neighbours(path: Path, found: Sequence[Neighbours]) -> None:
    """As Parquet (one row a pair: source, id, near_source, near_id, rank, distance) or JSON, by the file's ending."""
    if path.suffix == ".json":
        write_json(path, [to_plain(one) for one in found])
        return
    if path.suffix != ".parquet":
        raise ValueError(f"{path} is to end in .parquet or .json")
    rows = [
        (*one.query, *key, rank, distance)
        for one in found
        for rank, (key, distance) in enumerate(zip(one.keys, one.distances, strict=True))
    ]
    names = ("source", "id", "near_source", "near_id", "rank", "distance")
    with atomic_path(path) as temporary:
        pq.write_table(pa.table({name: [row[n] for row in rows] for n, name in enumerate(names)}), temporary)


def neighbours_command(
    pool: Path,
    target: Path,
    of: tuple[str, ...],
    side: Literal["sample", "frame"] = "sample",
    k: int = 5,
    out: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Show the robot frames nearest to samples of the pool, or the samples nearest to frames.

    Examples:
        emt neighbours --pool runs/mine/pool-features --target runs/mine/target-features --of povray/000012
        emt neighbours --pool runs/mine/pool-features --target runs/mine/target-features --side frame \\
            --of reach-v3/demo_3/0041 reach-v3/demo_4/0000 --k 20 --out near.parquet

    Args:
        pool: features of the pool (an 'emt embed' folder).
        target: features of the target.
        of: what to look for neighbours of: SOURCE/ID of a sample, TASK/EPISODE/FRAME of a frame.
        side: what `of` names: samples of the pool, or frames of the target.
        k: neighbours of each.
        out: a file for the result too (.parquet or .json).
        device: where distances are computed; auto: on a GPU where there is one.
    """
    sides = [Artifact.open(pool, "embed"), Artifact.open(target, "embed")]
    check_same_space(*sides)
    here, there = (open_features(store) for store in (sides if side == "sample" else sides[::-1]))
    found = nearest(find_rows(here, of), there, k, device=device)
    for one in found:
        print("/".join(one.query))
        for key, distance in zip(one.keys, one.distances, strict=True):
            print(f"  {distance:9.3f}  {'/'.join(key)}")
    if out is not None:
        write_neighbours(out, found)
