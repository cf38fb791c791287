"""A pool, its features, a target and a selection, prepared for the map once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied_midtrain.artifacts import Artifact, Skips, open_stage
from embodied_midtrain.explore.explore import ExploreConfig, explore
from embodied_midtrain.features.store import write_shard
from embodied_midtrain.proximity.select import SelectConfig, select
from embodied_midtrain.samples import Region, Sample, Turn
from embodied_midtrain.sources.export.run import ExportConfig, export
from embodied_midtrain.sources.opening import open_pool
from tests.sources.export.pools import Made, choose, encoded, sample
from tests.tiny import Dots

DIM = 8
HOSTILE = '<img src="http://192.0.2.1/a.png"> ![x](http://192.0.2.1/b.png) <script>document.title = "got"</script>'


def features(out: Path, keys: list[tuple[str, str]], shift: float) -> Artifact:
    rng = np.random.default_rng(len(keys))
    with open_stage(out, "embed", {"pooling": "mean", "layer": -1}, {"backbone": "b", "of": str(out)}) as run:
        for number, at in enumerate(range(0, len(keys), 30)):
            some = keys[at : at + 30]
            rows = rng.normal(shift, 1, (len(some), DIM)).astype(np.float16)
            write_shard(run.file(f"shard-{number:06d}.parquet"), some, rows)
        return run.finish({"used": len(keys)})


def samples() -> list[Sample]:
    found = [sample(f"{n}", "ab"[n % 2], [encoded("JPEG", (64, 48), seed=n)]) for n in range(78)]
    where = (Turn("user", HOSTILE), Turn("assistant", "At <region>.", (Region("point", (0.25, 0.5)),)))
    return [*found, sample("words only", "a"), sample("hostile", "b", [encoded()], where)]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders: pool, pool-features, target-features, selection."""
    folder = tmp_path_factory.mktemp("explore")
    made = samples()
    export(folder / "pool", ExportConfig("llava"), selection=choose(made), pool=Made(made))
    pool = features(folder / "pool-features", [one.key for one in made], 0.0)
    frames = [(e.task, f"{e.id}/{n:04d}") for e in Dots() for n in (0, 3, 7)]
    target = features(folder / "target-features", frames, 1.0)
    select(folder / "selection", SelectConfig("mean-distance", k=20), pool=pool, target=target)
    return {name: folder / name for name in ("pool", "pool-features", "target-features", "selection")}


@pytest.fixture(scope="session")
def prepared(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return explore(
        tmp_path_factory.mktemp("map") / "out",
        ExploreConfig(points=60),
        pool_path=inputs["pool"],
        pool=open_pool(inputs["pool"], skips=Skips()),
        selection=Artifact.open(inputs["selection"]),
        features=Artifact.open(inputs["pool-features"]),
        target_features=Artifact.open(inputs["target-features"]),
        robots=Dots(),
    )
