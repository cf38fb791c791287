"""`emt audit`: did the estimator find the robot's world, or a shortcut?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from embodied_midtrain.artifacts import Artifact, Skips, StageError, open_stage, read_json, share_of, write_json
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.diagnostics.given import Given
from embodied_midtrain.diagnostics.inspection import Inspection
from embodied_midtrain.diagnostics.shown import print_audit
from embodied_midtrain.diagnostics.verdict import Limits
from embodied_midtrain.features.matching import check_same_space
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.sources.opening import open_pool


@dataclass(frozen=True)
class AuditConfig:
    """How closely is looked, and from where on a figure counts."""

    rows: int = 2000
    """Samples, and frames, whose words and sizes are looked at, drawn with the seed."""
    rank_rows: int = 20_000
    """Samples that fits are made on and rankings are compared over."""
    pictures: int = 300
    """Samples that are embedded again with words or pictures altered. 0: none."""
    frames: int = 200
    """Frames that are embedded again beside them."""
    seeds: int = 5
    """Fits that differ by chance only."""
    splits: int = 3
    """Times that the target is split in two."""
    folds: int = 5
    """Of every probe; an episode is in one fold."""
    leak_stride: int = 4
    """One frame in so many is compared with the pool's pictures: those between look the same. 0: no comparison."""
    leak_bits: int = 4
    """Bits of 64 in which the hashes of a picture and its copy differ at most."""
    workers: int = 2
    """Threads that decode pictures."""
    seed: int = 0
    """Draws, folds and fits."""
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if self.seeds < 2 or self.splits < 1 or self.folds < 2:
            raise ValueError(f"seeds {self.seeds}, splits {self.splits}, folds {self.folds}: at least 2, 1 and 2")
        if min(self.rows, self.rank_rows) < 20 or (self.pictures and min(self.pictures, self.frames) < 20):
            raise ValueError("an audit looks at 20 rows or more of each kind (rows, rank_rows, pictures, frames)")
        if self.leak_stride < 0 or not 0 <= self.leak_bits <= 16:
            raise ValueError(f"leak_stride {self.leak_stride} is below 0, or leak_bits {self.leak_bits} not in 0 to 16")


def audit(
    out: Path,
    config: AuditConfig,
    *,
    pool: Artifact,
    target: Artifact,
    given: Given,
    max_bad: float = 0.1,
    overwrite: bool = False,
) -> Artifact:
    """Say whether the ranking follows what is seen.

    The artifact holds `audit.json` (the verdict with a sentence for each rule, and every figure) and, where pictures
    were compared, `leaks.parquet` (source, id, task, frame, bits) and `hashes/`.

    Args:
        pool, target: features.
        max_bad: share of the pool's samples that may be unreadable.

    Raises:
        StageError: on features that cannot be compared, or inputs that do not belong to them.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    inputs: dict[str, Artifact | str] = {"pool": pool, "target": target, **given.inputs()}
    with open_stage(out, "audit", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        check_same_space(pool, target)
        if inputs.get("backbone", wanted := pool.manifest["inputs"].get("backbone")) != wanted:
            raise StageError(f"{pool.path} was made with another backbone; give the one that it was made with.")
        facts = Inspection(run, config, pool, target, given, max_bad).facts()
        write_json(run.file("audit.json"), facts)
        run.skips.rows.extend(given.samples_skips.rows)
        return run.finish({"pool": facts["rows"]["pool"], "target": facts["rows"]["target"]})


def audit_command(
    pool: Path,
    target: Path,
    out: Path,
    config: AuditConfig = AuditConfig(),
    selection: Path | None = None,
    others: tuple[Path, ...] = (),
    samples: str | None = None,
    images: Path | None = None,
    robots: Path | None = None,
    camera: str | None = None,
    backbone: str | None = None,
    image_pool: Path | None = None,
    image_target: Path | None = None,
    max_bad: str = "10%",
    overwrite: bool = False,
) -> None:
    """Say whether a ranking found the robot's world or a shortcut: probes, altered samples, other fits, leaks.

    With the features alone it looks at the ranking's stability; the more you give, the more it can say.

    Examples:
        emt audit --pool runs/mine/pool-features --target runs/mine/target-features --selection runs/mine/selected \\
            --samples runs/mine/pool --robots runs/mine/demos --backbone compact --out runs/mine/audit
        emt audit --pool runs/mine/pool-features --target runs/mine/target-features --selection runs/mine/selected \\
            --others runs/mine/selected-other-prompt --out runs/mine/audit

    Args:
        pool: features of the pool (an 'emt embed' folder).
        target: features of the target.
        out: folder for the result.
        selection: the ranking to audit (an 'emt select' folder).
        others: rankings of the same pool with the target embedded under another prompt template.
        samples: the pool itself, as for 'emt embed --pool'.
        images: folder that image paths start from.
        robots: the robot data itself, as for 'emt embed --target'.
        camera: which pictures of the robot data were embedded, where they hold several.
        backbone: what the features were made with; some samples are then embedded again, altered.
        image_pool: features of the pool with pooling "image", in place of the audit's own.
        image_target: the same, of the target.
        max_bad: share of the pool's samples that may be unreadable.
        overwrite: replace a result that was made from other inputs or settings.
    """
    skips = Skips()
    given = Given(
        selection=Artifact.given(selection, "select"),
        others={path.name: Artifact.open(path, "select") for path in others},
        samples=open_pool(samples, images=images, skips=skips) if samples else None,
        samples_skips=skips,
        robots=open_robots(robots, Skips(), camera=camera) if robots else None,
        backbone=load_backbone(backbone) if backbone else None,
        image_pool=Artifact.given(image_pool, "embed"),
        image_target=Artifact.given(image_target, "embed"),
    )
    artifact = audit(
        out,
        config,
        pool=Artifact.open(pool, "embed"),
        target=Artifact.open(target, "embed"),
        given=given,
        max_bad=share_of(max_bad),
        overwrite=overwrite,
    )
    print_audit(read_json(artifact.file("audit.json")))
