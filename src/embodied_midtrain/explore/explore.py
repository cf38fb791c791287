"""`emt explore`: pool, selection and robot frames on one map, in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from embodied_midtrain.artifacts import Artifact, Skips, StageError, atomic_path, open_stage, write_json
from embodied_midtrain.episodes import Robots
from embodied_midtrain.explore.points import laid_out, mapped
from embodied_midtrain.explore.site import ABOUT, HOST, TABLE, about, make_server, page_files, write_static
from embodied_midtrain.explore.table import make_table, scores_of
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import Pool
from embodied_midtrain.sources.opening import open_pool, read_samples


@dataclass(frozen=True)
class ExploreConfig:
    """What stands on the map."""

    points: int = 5000
    """At most so many, a third of them robot frames; the selected samples first, then a draw of the others."""
    side: int = 160
    """Longest side of a picture, pixels."""
    seed: int = 0
    """The draw and the map."""


def explore(
    out: Path,
    config: ExploreConfig,
    *,
    pool_path: Path | str,
    pool: Pool,
    selection: Artifact,
    gap: Artifact | None = None,
    features: Artifact | None = None,
    target_features: Artifact | None = None,
    robots: Robots | None = None,
    images: Path | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Prepare the table of the map, and what the page is told of it.

    Places are those of `gap`, whose map holds a draw of the pool; or a map is made of `features`, which holds every
    selected sample.

    Raises:
        StageError: unless exactly one of `gap` and `features` is given; where a sample is not in the pool.
    """
    if (gap is None) == (features is None):
        raise StageError("give either --gap (its map is shown) or --features (a map of its own), and not both.")
    given = {"selection": selection, "gap": gap, "features": features, "target_features": target_features}
    inputs: dict[str, Artifact | str] = {name: artifact for name, artifact in given.items() if artifact is not None}
    inputs |= {"pool": pool.fingerprint(), **({"robots": robots.fingerprint()} if robots is not None else {})}
    with open_stage(out, "explore", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        selected = frozenset(read_selection(selection))
        if gap is not None:
            points = mapped(gap, config.points, selected, config.seed)
        else:
            assert features is not None
            points = laid_out(features, target_features, config.points, selected, config.seed)
        table = make_table(
            points,
            read_samples(pool_path, points.pool, images=images),
            scores_of(selection, points.pool),
            selected,
            robots,
            side=config.side,
            skips=run.skips,
        )
        with atomic_path(run.file(TABLE)) as path:
            pq.write_table(table, path, compression="snappy")
        write_json(run.file(ABOUT), about(by="kept"))
        kept = sum(key in selected for key in points.pool)
        return run.finish(
            {"pool": len(points.pool), "target": len(points.target), "selected": len(selected), "selected_shown": kept}
        )


def explore_command(
    pool: str,
    selection: Path,
    out: Path,
    config: ExploreConfig = ExploreConfig(),
    gap: Path | None = None,
    features: Path | None = None,
    target_features: Path | None = None,
    target: Path | None = None,
    camera: str | None = None,
    images: Path | None = None,
    static: Path | None = None,
    port: int = 5055,
    overwrite: bool = False,
) -> None:
    """Open an interactive map of pool, selection and robot frames in the browser, by embedding-atlas.

    Points are coloured by what was selected; scores, ranks and sources can be filtered, texts searched, pictures
    looked at. Everything stays on this machine: the page is served to it alone and may load nothing from elsewhere.

    Examples:
        emt explore --pool runs/quickstart/pool --selection runs/quickstart/select/estimator \\
            --features runs/quickstart/features/pool --target-features runs/quickstart/features/target \\
            --target runs/quickstart/demos --out runs/quickstart/explore
        emt explore --pool runs/quickstart/pool --selection runs/quickstart/select/estimator \\
            --gap runs/quickstart/gap --out runs/quickstart/explore-gap --static exports/map

    Args:
        pool: the pool, as for 'emt embed'.
        selection: an 'emt select' folder: scores, ranks, what was chosen.
        out: folder for what is prepared; given again, it is only opened.
        gap: an 'emt gap' folder, whose map is shown (a draw of the pool).
        features: the pool's features; a map of its own then, with every selected sample that fits.
        target_features: features of the target, to stand on that map too.
        target: the robot data themselves, for the pictures of their frames.
        camera: which pictures of the target were embedded.
        images: folder that image paths of the pool start from.
        static: write page and data into this new folder, for any web server, instead of opening them.
        port: of the local server; 0 takes any that is free.
        overwrite: replace a result that was made from other inputs or settings.
    """
    page_files()
    artifact = explore(
        out,
        config,
        pool_path=pool,
        pool=open_pool(pool, images=images, skips=Skips()),
        selection=Artifact.open(selection, "select"),
        gap=Artifact.given(gap, "gap"),
        features=Artifact.given(features, "embed"),
        target_features=Artifact.given(target_features, "embed"),
        robots=open_robots(target, Skips(), camera=camera) if target is not None else None,
        images=images,
        overwrite=overwrite,
    )
    counts = artifact.counts
    print(
        f"{counts['pool']} samples ({counts['selected_shown']} of {counts['selected']} selected) and "
        f"{counts['target']} robot frames on the map"
    )
    if static is not None:
        write_static(static, out)
        print(f"{static}: show it with any web server, such as: python -m http.server --bind 127.0.0.1 -d {static}")
        return
    server = make_server(out, port)
    print(f"http://{HOST}:{server.server_port}  (this machine only; Ctrl-C ends it)", flush=True)
    with server:
        server.serve_forever()
