"""`emt score`: one number for each sample of a pool by what is no matter of features: likelihood, words, influence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embodied_midtrain.artifacts import (
    Artifact,
    Skips,
    StageError,
    StageRun,
    open_stage,
    refuse_if_bad,
    share_of,
)
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.opening import COMPACT, load_backbone
from embodied_midtrain.backbones.precision import Precision, quick_inference
from embodied_midtrain.episodes import ACTION_PROMPT, Robots, target_prompt
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.proximity.gradients import Gradients
from embodied_midtrain.proximity.influence import ActionGradients, InfluenceConfig, action_gradients
from embodied_midtrain.proximity.perplexity import answer_losses
from embodied_midtrain.proximity.text import TextConfig, fit_text, text_of
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import BadSample, Pool, Sample
from embodied_midtrain.sources.opening import POOL_STAGE, open_pool

By = Literal["perplexity", "text", "influence"]
NEEDS: dict[By, tuple[str, ...]] = {
    "perplexity": ("backbone",),
    "text": ("target",),
    "influence": ("backbone", "target"),
}
Row = tuple[str, str, float]
"""Source, id, value."""
SCHEMA = pa.schema([("source", pa.string()), ("id", pa.string()), ("value", pa.float32())])


@dataclass(frozen=True)
class ScoreConfig:
    """How samples are scored."""

    by: By = "perplexity"
    """Mean negative log-likelihood of the answers under a backbone; the log ratio of the words (DSIR); or the cosine of
    a sample's gradient with those of the target's action loss (LESS)."""
    batch_size: int = 32
    """Rows in one forward pass."""
    part_size: int = 256
    """Samples that are written at once: what a killed run loses at most."""
    precision: Precision = "auto"
    """Of the arithmetic; auto: bf16 where the processor multiplies it natively."""
    workers: int = 2
    """Threads that decode pictures."""
    prompt: str = ACTION_PROMPT
    """The user text that goes with a robot frame (text, influence)."""
    text: TextConfig = field(default_factory=TextConfig)
    influence: InfluenceConfig = field(default_factory=InfluenceConfig)


def score(
    out: Path,
    config: ScoreConfig,
    *,
    pool: Pool,
    backbone: Backbone | None = None,
    target: Robots | None = None,
    spoken: Artifact | None = None,
    skips: Skips | None = None,
    max_bad: float = 0.1,
    overwrite: bool = False,
) -> Artifact:
    """A number for each sample, in the pool's order: `part-*.parquet` (source, id, value).

    Args:
        backbone: for perplexity and influence.
        target: robot data: for text its prompts are the target's words, for influence its actions the target.
        spoken: for influence, an 'emt robots as-text' artifact that the backbone was tuned on.
        skips: the list that the readers add to; it goes into the artifact.
        max_bad: share of samples that may be left out.

    Raises:
        StageError: where no sample could be scored, or too many are bad.
        ValueError: where what the measure needs is not given.
    """
    config.influence.check()
    given = {"backbone": backbone.fingerprint() if backbone else "", "target": target.fingerprint() if target else ""}
    needed = NEEDS[config.by]
    if {name for name, one in given.items() if one} != set(needed):
        raise ValueError(f"a score by {config.by} takes a {' and a '.join(needed)}, and nothing else beside the pool")
    inputs: dict[str, Artifact | str] = {"pool": pool.fingerprint(), **{name: given[name] for name in needed}}
    if spoken is not None:
        if config.by != "influence":
            raise ValueError(f"a score by {config.by} takes no robot text")
        inputs["spoken"] = spoken
    with open_stage(out, "score", config, inputs, overwrite=overwrite) as run, ExitStack() as inside:
        if run.done:
            return run.artifact()
        reader = skips if skips is not None else Skips()
        facts: dict[str, Any] = {}
        if config.by == "text":
            assert target is not None
            measure = _by_words(pool, target, config)
        elif config.by == "perplexity":
            assert backbone is not None
            inside.enter_context(quick_inference(backbone.base, backbone.device, config.precision))
            measure = _by_likelihood(backbone, config)
        else:
            assert backbone is not None and target is not None
            own = config.influence
            made = Gradients(
                backbone, rank=own.rank, last=own.last, seed=own.projection_seed, precision=config.precision
            )
            gradients = inside.enter_context(made)
            wanted = action_gradients(
                run, gradients, backbone, target, own, prompt=config.prompt, batch_size=config.batch_size, spoken=spoken
            )
            facts["agreement"] = wanted.agreement
            measure = _by_influence(backbone, gradients, wanted, config)
        used = _parts(run, pool, config, reader, max_bad, measure)
        run.skips.rows.extend(reader.rows)
        if not used:
            raise StageError(f"nothing in {pool.name} could be scored: is the pool empty?")
        return run.finish({"used": used}, **facts)


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
    def losses(rows: list[Rendered]) -> NDArray[np.float32]:
        return answer_losses(backbone, rows, batch_size=config.batch_size, precision=config.precision)

    return _of_rendered(backbone, losses, "no likelihood")


def _by_influence(backbone: Backbone, gradients: Gradients, wanted: ActionGradients, config: ScoreConfig) -> Measure:
    def cosines(rows: list[Rendered]) -> NDArray[np.float32]:
        return wanted.scores(gradients.of(rows, config.batch_size), config.influence.over)

    return _of_rendered(backbone, cosines, "nan gradient")


def _of_rendered(
    backbone: Backbone, values_of: Callable[[list[Rendered]], NDArray[np.float32]], otherwise: str
) -> Measure:
    """By what the backbone is given; samples that cannot be, and for the reason `otherwise` NaNs, are left out."""

    def measure(samples: list[Sample], threads: ThreadPoolExecutor, skips: Skips) -> list[Row]:
        keys, rendered = [], []
        for sample, future in [(sample, threads.submit(backbone.render, sample)) for sample in samples]:
            try:
                rendered.append(future.result())
                keys.append(sample.key)
            except BadSample as error:
                skips.add(error.reason, "/".join(sample.key), error.detail)
        rows: list[Row] = []
        for key, value in zip(keys, values_of(rendered).tolist(), strict=True):
            if np.isfinite(value):
                rows.append((*key, value))
            else:
                skips.add(otherwise, "/".join(key))
        return rows

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
    spoken: Path | None = None,
    images: Path | None = None,
    max_bad: str = "10%",
    overwrite: bool = False,
) -> None:
    """Score every sample of a pool by likelihood, by its words alone, or by what learning it would do for the actions.

    'emt select' ranks by it. Give the same command again after an interruption: finished parts are kept.

    Examples:
        emt score --pool runs/quickstart/pool --backbone runs/mine/robot-tuned/model --out runs/mine/perplexity
        emt score --pool runs/quickstart/pool --backbone compact --out runs/mine/perplexity-before
        emt score --by text --pool runs/quickstart/pool --target runs/quickstart/demos --out runs/mine/words
        emt score --by influence --pool runs/quickstart/pool --target runs/quickstart/demos --out runs/mine/influence \\
            --backbone runs/quickstart/robot-tuned/model --spoken runs/quickstart/robot-text

    Args:
        pool: a pool artifact, or files as for 'emt embed'.
        out: folder for the scores.
        backbone: for perplexity and influence: "compact", or the name or folder of a transformers image-text-to-text
            model; by default compact.
        target: for text and influence: robot data, as for 'emt embed'.
        camera: which pictures of the target to take, where it holds several.
        spoken: for influence: the 'emt robots as-text' folder that the backbone was tuned on, whose bins it knows.
        images: folder that image paths start from.
        max_bad: share of samples that may be left out; past it the run stops (what was finished is kept).
        overwrite: replace a result that was made from other inputs or settings.
    """
    skips = Skips()
    opened = open_pool(pool, images=images, skips=skips)
    robots = open_robots(target, skips, camera=camera) if target else None
    loaded = load_backbone(backbone or COMPACT) if backbone or "backbone" in NEEDS[config.by] else None
    artifact = score(
        out,
        config,
        pool=opened,
        backbone=loaded,
        target=robots,
        spoken=Artifact.open(spoken, POOL_STAGE) if spoken else None,
        skips=skips,
        max_bad=share_of(max_bad),
        overwrite=overwrite,
    )
    print(f"{artifact.counts['used']} scores in {out}; skipped: {artifact.counts['skipped'] or 'none'}")
    for group, agreement in artifact.manifest.get("agreement", {}).items():
        print(f"{group}: the gradients of two halves of its episodes have a cosine of {agreement:.2f}")
