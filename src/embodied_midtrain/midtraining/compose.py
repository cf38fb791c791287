"""`emt compose`: several pools as one, under a fixed budget of samples.

"Rethinking VLM Representation for VLA Initialization" (arXiv 2605.25802) compares compositions of domains at 800,000
samples each, even by domain. A domain with fewer samples than its share comes again: how often is counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, Skips, StageError, atomic_path, open_stage, write_json
from embodied_midtrain.midtraining.weights import quotas, spread
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.samples import Pool
from embodied_midtrain.sources.composed import COMPOSE_STAGE, DRAWS_FILE, PARTS_FILE
from embodied_midtrain.sources.opening import keys_of, open_pool
from embodied_midtrain.sources.places import is_url
from embodied_midtrain.training.order import draws


@dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """How much is drawn of what."""

    budget: int
    """Samples in all, repeats counted."""
    by: Literal["pool", "source"] = "pool"
    """What has a share of the budget: each pool, or each source in them."""
    weights: dict[str, float] = field(default_factory=dict)
    """Shares as 'name weight' pairs, one without is not drawn; none given: even."""
    seed: int = 0
    """Of the draws."""


def compose(
    out: Path,
    config: ComposeConfig,
    *,
    pools: Mapping[str, Path | str],
    images: Mapping[str, Path] | None = None,
    selection: Artifact | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Draw `config.budget` samples of several pools; `open_pool` reads the result, the samples stay where they are.

    Every stretch of it has about the shares of the whole. Its counts say of each pool (or source) how many samples
    there are, how many were drawn, and how many of these draws were repeats.

    Args:
        pools: by name.
        images: folders that image paths of some of them start from.
        selection: an 'emt select' artifact: of a pool that stands alone, only what it chose is drawn from.

    Raises:
        StageError: where a pool has no sample, or one has a sample of another, or lacks one that was chosen.
        ValueError: settings that cannot be meant.
    """
    if config.budget < 1:
        raise ValueError(f"budget is {config.budget}; it must be at least 1")
    if selection is not None and len(pools) != 1:
        raise ValueError(f"a selection is of one pool, and {len(pools)} are given")
    folders = images or {}
    reader = Skips()
    opened = {name: open_pool(pools[name], images=folders.get(name), skips=reader) for name in pools}
    prints: dict[str, Artifact | str] = {name: pool.fingerprint() for name, pool in opened.items()}
    made_from = prints | ({"selection": selection} if selection is not None else {})
    with open_stage(out, COMPOSE_STAGE, config, made_from, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        rows = [(name, *key) for name, pool in opened.items() for key in keys_of(pool)]
        if selection is not None:
            rows = _chosen(rows, selection)
        _refuse_common(rows, opened)
        groups: dict[str, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(row[0 if config.by == "pool" else 1], []).append(at)
        meant = quotas(config.weights or dict.fromkeys(groups, 1.0), groups, config.budget)
        drawn = {n: np.asarray(groups[n])[draws(len(groups[n]), count, config.seed)] for n, count in meant.items()}
        order = spread(drawn).tolist()
        columns = map(list, zip(*(rows[at] for at in order), strict=True))
        with atomic_path(run.file(DRAWS_FILE)) as temporary:
            pq.write_table(pa.table(dict(zip(("part", "source", "id"), columns, strict=True))), temporary)
        parts = {
            name: {
                "path": _from(run.out, pools[name]),
                "images": _from(run.out, folders[name]) if name in folders else "",
                "fingerprint": prints[name],
            }
            for name in opened
        }
        write_json(run.file(PARTS_FILE), parts)
        run.skips.rows.extend(reader.rows)
        return run.finish({"draws": config.budget, "shares": {n: _counts(rows, groups[n], drawn[n]) for n in drawn}})


def _chosen(rows: list[tuple[str, str, str]], selection: Artifact) -> list[tuple[str, str, str]]:
    wanted = set(read_selection(selection))
    found = [row for row in rows if row[1:] in wanted]
    if missing := wanted - {row[1:] for row in found}:
        raise StageError(
            f"{len(missing)} of {len(wanted)} samples that {selection.path} chose are not in this pool, such as "
            f"{' '.join(min(missing))}: it was made from another one"
        )
    return found


def _counts(rows: list[tuple[str, str, str]], group: list[int], drawn: NDArray[np.int64]) -> dict[str, Any]:
    """Different samples there, draws, and draws beyond each sample's first (a pool may be a composition itself)."""
    different = len({rows[at] for at in group})
    return {
        "samples": different,
        "drawn": len(drawn),
        "repeated": len(drawn) - len({rows[at] for at in drawn.tolist()}),
    }


def _refuse_common(rows: list[tuple[str, str, str]], opened: Mapping[str, Pool]) -> None:
    owners: dict[tuple[str, str], str] = {}
    for name, source, id in rows:
        if owners.setdefault((source, id), name) != name:
            raise StageError(
                f"sample {id!r} of source {source!r} is in the pool {owners[source, id]} and in {name}: it could not "
                "be told which one was drawn. Give pools that share no sample."
            )
    if empty := set(opened) - set(owners.values()):
        raise StageError(f"nothing can be drawn of {', '.join(sorted(empty))}: there is no sample")


def _from(folder: Path, place: Path | str) -> str:
    """A local place as seen from the folder, so that both can be moved together."""
    return str(place) if is_url(str(place)) else os.path.relpath(place, folder)


def compose_command(
    out: Path, pools: tuple[str, ...], config: ComposeConfig, selection: Path | None = None, overwrite: bool = False
) -> None:
    """Several pools as one, under a fixed budget of samples: what `emt midtrain --pool` takes.

    Examples:
        emt compose --out runs/mine/composed --pools runs/mine/grounding runs/mine/egocentric --budget 8000
        emt compose --out runs/mine/composed --pools runs/mine/etc runs/mine/ood --budget 8000 --weights etc 94 ood 6
        emt compose --out runs/mine/kept --pools runs/mine/pool --selection runs/mine/selected --budget 8000

    Args:
        out: folder for the composition.
        pools: pools as `emt midtrain` takes them; each is called by its last name, without an ending.
        config: how much is drawn of each.
        selection: an 'emt select' folder: draw from what it chose of the one pool.
        overwrite: replace a result that was made from other pools or settings.
    """
    named = {Path(place).stem: place for place in pools}
    if len(named) < len(pools):
        raise ValueError("two pools have the same name and could not be told apart: rename one")
    chosen = Artifact.open(selection) if selection is not None else None
    artifact = compose(out, config, pools=named, selection=chosen, overwrite=overwrite)
    print(f"{artifact.path}: {artifact.counts['draws']} draws")
    print(f"{config.by:<24}{'samples':>10}{'drawn':>10}{'repeated':>10}")
    for name, row in artifact.counts["shares"].items():
        print(f"{name:<24}{row['samples']:>10}{row['drawn']:>10}{row['repeated']:>10}")
