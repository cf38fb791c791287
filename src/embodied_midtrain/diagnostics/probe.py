"""`emt probe`: what a frozen backbone's features say of the robot, layer by layer, before any policy is trained.

Frozen-backbone probing is named in "Rethinking VLM Representation for VLA Initialization" (arXiv 2605.25802, appendix
E), which does not give its protocol. Ours: linear probes, tested on whole episodes that they have not seen, beside a
control in which every episode has the labels of another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, Skips, StageError, StageRun, open_stage, read_json, write_json
from embodied_midtrain.diagnostics.labels import Labels, Place, Rows, Track, labels_of, rows_at, take, tracks_of
from embodied_midtrain.diagnostics.linear_probes import LinearProbes, Score
from embodied_midtrain.episodes import Robots
from embodied_midtrain.features.splits import folds
from embodied_midtrain.features.store import FeatureStore, open_features
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.robots.opening import open_robots

FILE = "probe.json"
FEWEST = 3
"""Folds: one to test on, one to choose the penalty by, and one to fit to."""


@dataclass(frozen=True)
class ProbeConfig:
    """What is read from the features."""

    chunk: int = 10
    """Actions that follow a frame and are to be read from it."""
    state: str | None = None
    """Also read these numbers of each frame, by the name that the data have for them, such as object places."""
    folds: int = 5
    """Parts of the episodes: each is tested on once; fewer where there are fewer episodes."""
    seed: int = 0
    """Of the folds, the control and the intervals."""

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if self.chunk < 1 or self.folds < FEWEST:
            raise ValueError(f"chunk {self.chunk} and folds {self.folds}: wanted at least 1 and {FEWEST}")


def probe(
    out: Path,
    config: ProbeConfig,
    *,
    features: Artifact,
    target: Robots,
    skips: Skips | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Probe every layer of an 'emt embed --target' store.

    The artifact holds `probe.json`: of each layer and target the score on unseen episodes with its interval, the same
    for labels of other episodes, and what was left out and why.

    Args:
        target: the robot data that the features are of, opened with `config.state`.
        skips: the list that the target's reader adds to; it goes into the artifact. Frames of episodes that it leaves
            out, as one without that state, are left out too.

    Raises:
        StageError: on features of other data, too few episodes, or labels that are all constant.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    made_of = features.manifest["inputs"].get("target")
    if made_of != target.fingerprint():
        what = "of a pool, not of" if made_of is None else "of other robot data than"
        raise StageError(
            f"{features.path} holds features {what} {target.name}: give the data that 'emt embed --target' read."
        )
    inputs: dict[str, Artifact | str] = {
        "features": features,
        "target": target.fingerprint(),
        "state": config.state or "",
    }
    with open_stage(out, "probe", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        store = open_features(features)
        settings = features.manifest["config"]
        layers: list[int] = settings.get("layers") or [settings["layer"]]
        tracks = tracks_of(target)
        labels, missing = labels_of(tracks, target.spec, chunk=config.chunk, state=config.state)
        episode, frame = _places(store, tracks)
        facts: dict[str, Any] = {"layers": []}
        with progress_bar("probe", len(layers)) as bar:
            for number, layer in enumerate(layers):
                part = run.part(f"layer-{number:03d}")
                if part is None:
                    rows = _columns(store, number, len(layers))
                    part = _layer(run, number, rows, episode, frame, tracks, labels, config)
                facts["layers"].append({"layer": layer, "targets": part["targets"]})
                missing |= part["missing"]
                counts = part["counts"]
                bar.advance()
        facts |= {**counts, "missing": missing, "backbone": read_json(features.file("store.json"))["backbone"]}
        facts |= {"pooling": settings["pooling"], "chunk": config.chunk}
        write_json(run.file(FILE), facts)
        run.skips.rows.extend(skips.rows if skips is not None else ())
        return run.finish(counts)


def _places(store: FeatureStore, tracks: Mapping[Place, Track]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row of the store the number of its episode, -1 where there is none, and of its frame."""
    number = {name: n for n, name in enumerate(tracks)}
    episode, frame = [], []
    for shard in store.shards:
        sources, ids = shard.keys()
        for source, id in zip(sources.to_pylist(), ids.to_pylist(), strict=True):
            own, _, at = id.rpartition("/")
            episode.append(number.get((source, own), -1))
            frame.append(int(at))
    return np.array(episode, np.int64), np.array(frame, np.int64)


def _columns(store: FeatureStore, number: int, layers: int) -> NDArray[np.float32]:
    """The features of one of the layers: [rows, hidden]."""
    width = store.dim // layers
    found = np.empty((store.rows, width), np.float32)
    at = 0
    for block in store.blocks():
        found[at : at + len(block)] = block[:, number * width : (number + 1) * width]
        at += len(block)
    return found


def _layer(
    run: StageRun,
    number: int,
    rows: NDArray[np.float32],
    episode: NDArray[np.int64],
    frame: NDArray[np.int64],
    tracks: Mapping[Place, Track],
    labels: Sequence[Labels],
    config: ProbeConfig,
) -> dict[str, Any]:
    skips = Skips()
    names = list(tracks)
    known, finite = episode >= 0, np.isfinite(rows).all(axis=1)
    for n in np.flatnonzero(known & ~finite).tolist():
        skips.add("nan feature", f"{'/'.join(names[episode[n]])}/{frame[n]:04d}")
    usable = known & finite
    rows, episode, frame = rows[usable], episode[usable], frame[usable]
    there, packed = np.unique(episode, return_inverse=True)
    if len(there) < FEWEST:
        raise StageError(
            f"there are usable frames of {len(there)} episodes: probes are fitted, chosen and tested on different "
            f"ones, so at least {FEWEST} are needed."
        )
    count = min(config.folds, len(there))
    strata = np.array([track.instruction for track in tracks.values()])[there]
    fold = folds(np.arange(len(there)).astype(str), count, np.random.default_rng(config.seed), strata=strata)
    probes = LinearProbes(rows, packed, fold)
    lengths = np.array([len(track.actions) for track in tracks.values()], np.int64)
    at = rows_at(episode, frame, lengths, config.seed)
    targets, missing = {}, {}
    for one in labels:
        found = read_target(probes, one, at, config.seed)
        if found is None:
            missing[one.name] = "the same for all frames"
        else:
            targets[one.name] = found
    if not targets:
        raise StageError("every label is the same for all frames: there is nothing to read.")
    counts = {"rows": len(rows), "episodes": len(there), "folds": count}
    return run.commit_part(
        f"layer-{number:03d}", {"targets": targets, "missing": missing, "counts": counts}, skips=skips
    )


def read_target(probes: LinearProbes, labels: Labels, at: Rows, seed: int) -> dict[str, Any] | None:
    """The scores of one target and of its control; None where there is nothing to tell apart."""
    values, others = take(labels, at.episode, at.frame), take(labels, at.other, at.other_frame)
    if labels.part is None:
        there, values = np.unique(values, return_inverse=True)
        if len(there) < 2:
            return None
        names = [labels.parts[n] for n in there]
        # Another episode may be in a class that no used frame is in.
        kept, others = np.unique(others, return_inverse=True)
        found = probes.classes(values, seed)
        control = probes.classes(others, seed).value if len(kept) > 1 else 1.0
        return _facts("accuracy", found, control, names, 1 / len(there))
    varies = np.flatnonzero((values.std(0) > 1e-9) & (others.std(0) > 1e-9))
    if not len(varies):
        return None
    part, places = np.unique(labels.part[varies], return_inverse=True)
    found = probes.numbers(values[:, varies], places, seed)
    control = probes.numbers(others[:, varies], places, seed).value
    return _facts("R2", found, control, [labels.parts[n] for n in part], 0.0)


def _facts(measure: str, found: Score, control: float, names: list[str], chance: float) -> dict[str, Any]:
    facts = asdict(found)
    parts = dict(zip(names, facts.pop("parts"), strict=True))
    return {"measure": measure, **facts, "control": control, "chance": chance, "parts": parts}


def probe_command(
    features: Path,
    target: Path,
    out: Path,
    config: ProbeConfig = ProbeConfig(),
    camera: str | None = None,
    overwrite: bool = False,
) -> None:
    """Say what a frozen backbone's features tell of the robot: next actions, gripper, phase, instruction, objects.

    Linear probes, tested on episodes that they have not seen. The control has the labels of other episodes: what is
    read from it, time alone says.

    Examples:
        emt embed --target runs/quickstart/demos --layers 6 12 18 --pooling image --frames-per-episode 20 \\
            --out runs/mine/probed
        emt probe --features runs/mine/probed --target runs/quickstart/demos --out runs/mine/probe
        emt probe --features runs/mine/probed --target data/robomimic --state object --out runs/mine/probe-objects
        emt probe --features runs/mine/probed --target runs/told --state truth/low --out runs/mine/probe-objects

    Args:
        features: an 'emt embed --target' folder, of one layer or of several.
        target: the robot data that it was made of.
        out: folder for the result.
        config: what is read.
        camera: as it was given to 'emt embed'.
        overwrite: replace a result that was made from other inputs or settings.
    """
    skips = Skips()
    robots = open_robots(target, skips, camera=camera, state=config.state)
    opened = Artifact.open(features, "embed")
    artifact = probe(out, config, features=opened, target=robots, skips=skips, overwrite=overwrite)
    print_probe(read_json(artifact.file(FILE)))
    if skipped := artifact.counts["skipped"]:
        print(f"skipped: {skipped}")


def print_probe(facts: dict[str, Any]) -> None:
    """A line for each layer and target."""
    print(
        f"{facts['backbone']}, {facts['pooling']}: {facts['rows']} frames of {facts['episodes']} episodes, "
        f"{facts['folds']} folds by episode"
    )
    print(f"{'layer':<7}{'target':<13}{'measure':<10}{'value':>8}  {'95 % interval':<18}{'control':>8}{'chance':>8}")
    for layer in facts["layers"]:
        for name, own in layer["targets"].items():
            span = f"{own['low']:.3f} to {own['high']:.3f}"
            print(
                f"{layer['layer']:<7}{name:<13}{own['measure']:<10}{own['value']:>8.3f}  {span:<18}"
                f"{own['control']:>8.3f}{own['chance']:>8.3f}"
            )
            if own["measure"] == "R2":
                print(f"{'':<20}" + ", ".join(f"{part} {value:.2f}" for part, value in own["parts"].items()))
    for name, why in facts["missing"].items():
        print(f"left out: {name} ({why})")
