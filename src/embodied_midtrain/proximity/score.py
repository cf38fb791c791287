"""`emt score`: one number for each sample of a pool by what is not a matter of features: likelihood, or words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import Artifact, Skips, StageError, StageRun, open_stage, refuse_if_bad, share_of
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import Precision, quick_inference
from embodied_midtrain.episodes import ACTION_PROMPT, Robots, target_prompt
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.proximity.perplexity import answer_losses
from embodied_midtrain.proximity.text import TextConfig, fit_text, text_of
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import BadSample, Pool, Sample
from embodied_midtrain.sources.opening import open_pool

By = Literal["perplexity", "text"]
Row = tuple[str, str, float]
"""Source, id, value."""
SCHEMA = pa.schema([("source", pa.string()), ("id", pa.string()), ("value", pa.float32())])


@dataclass(frozen=True)
class ScoreConfig:
    """How samples are scored."""

    by: By = "perplexity"
    """Mean negative log-likelihood of the answers under a backbone; or the log ratio of the words (DSIR)."""
    batch_size: int = 32
    """Rows in one forward pass."""
    part_size: int = 256
    """Samples that are written at once: what a killed run loses at most."""
    precision: Precision = "auto"
    """Of the arithmetic; auto: bf16 where the processor multiplies it natively."""
    workers: int = 2
    """Threads that decode pictures."""
    prompt: str = ACTION_PROMPT
    """The user text that goes with a robot frame (text)."""
    text: TextConfig = field(default_factory=TextConfig)


def score(
    out: Path,
    config: ScoreConfig,
    *,
    pool: Pool,
    backbone: Backbone | None = None,
    target: Robots | None = None,
    skips: Skips | None = None,
    max_bad: float = 0.1,
    overwrite: bool = False,
) -> Artifact:
    """A number for each sample, in the pool's order: `part-*.parquet` (source, id, value).

    Args:
        backbone: for perplexity.
        target: robot data, whose prompts are the target's words, for text.
        skips: the list that the readers add to; it goes into the artifact.
        max_bad: share of samples that may be left out.

    Raises:
        StageError: where no sample could be scored, or too many are bad.
        ValueError: where what the measure needs is not given.
    """
    given = {"backbone": backbone.fingerprint() if backbone else "", "target": target.fingerprint() if target else ""}
    needed = "backbone" if config.by == "perplexity" else "target"
    if not given[needed] or sum(bool(one) for one in given.values()) > 1:
        raise ValueError(f"a score by {config.by} takes a {needed}, and nothing else beside the pool")
    inputs: dict[str, Artifact | str] = {"pool": pool.fingerprint(), needed: given[needed]}
    with open_stage(out, "score", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        reader = skips if skips is not None else Skips()
        if backbone is not None:
            with quick_inference(backbone.base, backbone.device, config.precision):
                used = _parts(run, pool, config, reader, max_bad, _by_likelihood(backbone, config))
        else:
            assert target is not None
            used = _parts(run, pool, config, reader, max_bad, _by_words(pool, target, config))
        run.skips.rows.extend(reader.rows)
        if not used:
            raise StageError(f"nothing in {pool.name} could be scored: is the pool empty?")
        return run.finish({"used": used})


Measure = Callable[[list[Sample], ThreadPoolExecutor, Skips], list[Row]]


def _parts(run: StageRun, pool: Pool, config: ScoreConfig, reader: Skips, max_bad: float, measure: Measure) -> int:
    used = bad = 0

    def faults() -> Iterator[dict[str, str]]:
        yield from reader.rows
        for record in run.parts():
            yield from record["skipped"]

    def judge() -> None:
        refuse_if_bad(run, used, bad + len(reader), max_bad, faults)

    stream: Iterator[Sample] = iter(pool)
    with progress_bar(f"score {pool.name} by {config.by}", None) as bar, ThreadPoolExecutor(config.workers) as threads:
        for number in itertools.count():
            samples = list(itertools.islice(stream, config.part_size))
            if not samples:
                break
            record = run.part(f"{number:06d}")
            if record is None:
                skips = Skips()
                rows = measure(samples, threads, skips)
                name = f"part-{number:06d}.parquet"
                writers = {name: _writer(rows)} if rows else {}
                record = run.commit_part(f"{number:06d}", {"used": len(rows)}, writers, skips)
            used += record["used"]
            bad += len(record["skipped"])
            bar.advance(len(samples))
            bar.say(f"{bad + len(reader)} skipped")
            judge()
    judge()
    return used


def _writer(rows: list[Row]) -> Callable[[Path], None]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    return lambda path: pq.write_table(table, path)


def _by_likelihood(backbone: Backbone, config: ScoreConfig) -> Measure:
    def measure(samples: list[Sample], threads: ThreadPoolExecutor, skips: Skips) -> list[Row]:
        keys: list[tuple[str, str]] = []
        rendered: list[Rendered] = []
        for sample, future in [(sample, threads.submit(backbone.render, sample)) for sample in samples]:
            try:
                rendered.append(future.result())
                keys.append(sample.key)
            except BadSample as error:
                skips.add(error.reason, "/".join(sample.key), error.detail)
        losses = answer_losses(backbone, rendered, batch_size=config.batch_size, precision=config.precision)
        for key, loss in zip(keys, losses.tolist(), strict=True):
            if not np.isfinite(loss):
                skips.add("no likelihood", "/".join(key))
        return [(*key, loss) for key, loss in zip(keys, losses.tolist(), strict=True) if np.isfinite(loss)]

    return measure


def _by_words(pool: Pool, target: Robots, config: ScoreConfig) -> Measure:
    prompts = (target_prompt(episode.instruction, config.prompt) for episode in target)
    model = fit_text((text_of(sample, config.text) for sample in pool), prompts, config.text)

    def measure(samples: list[Sample], threads: ThreadPoolExecutor, skips: Skips) -> list[Row]:
        return [(*sample.key, model.score(text_of(sample, config.text))) for sample in samples]

    return measure


def read_scores(scores: Artifact) -> Iterator[tuple[list[str], list[str], NDArray[np.float32]]]:
    """Sources, ids and values of an `emt score` artifact, part by part, in the pool's order."""
    for path in sorted(scores.path.glob("part-*.parquet")):
        try:
            table = pq.read_table(path)
            yield table["source"].to_pylist(), table["id"].to_pylist(), table["value"].to_numpy()
        except (pa.ArrowException, KeyError, OSError) as error:
            raise StageError(
                f"{path} is damaged ({error}); remove it and give its 'emt score' command again."
            ) from error


def score_command(
    pool: str,
    out: Path,
    config: ScoreConfig = ScoreConfig(),
    backbone: str | None = None,
    target: Path | None = None,
    camera: str | None = None,
    images: Path | None = None,
    max_bad: str = "10%",
    overwrite: bool = False,
) -> None:
    """Score every sample of a pool by likelihood under a backbone, or by its words alone; 'emt select' ranks by it.

    Give the same command again after an interruption: finished parts are kept.

    Examples:
        emt score --pool runs/quickstart/pool --backbone runs/mine/robot-tuned/model --out runs/mine/perplexity
        emt score --pool runs/quickstart/pool --backbone compact --out runs/mine/perplexity-before
        emt score --by text --pool runs/quickstart/pool --target runs/quickstart/demos --out runs/mine/words

    Args:
        pool: a pool artifact, or files as for 'emt embed'.
        out: folder for the scores.
        backbone: for perplexity: "compact", or the name or folder of a transformers image-text-to-text model.
        target: for text: robot data, as for 'emt embed'.
        camera: which pictures of the target to take, where it holds several.
        images: folder that image paths start from.
        max_bad: share of samples that may be left out; past it the run stops (what was finished is kept).
        overwrite: replace a result that was made from other inputs or settings.
    """
    skips = Skips()
    opened = open_pool(pool, images=images, skips=skips)
    robots = open_robots(target, skips, camera=camera) if target else None
    loaded = load_backbone(backbone or "compact") if config.by == "perplexity" else None
    artifact = score(
        out,
        config,
        pool=opened,
        backbone=loaded,
        target=robots,
        skips=skips,
        max_bad=share_of(max_bad),
        overwrite=overwrite,
    )
    print(f"{artifact.counts['used']} scores in {out}; skipped: {artifact.counts['skipped'] or 'none'}")
