"""`emt retention`: what a backbone could do before it was adapted, and still can (or not) afterwards.

Forgetting is why mid-training can cost a policy what it should bring (arXiv 2605.25802: full fine-tuning loses 18 % on
general benchmarks). All models answer the same held-out questions, by the likelihood of each answer, so that before
and after are compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied_midtrain.artifacts import (
    Artifact,
    Skips,
    StageError,
    StageRun,
    atomic_path,
    open_stage,
    read_json,
    write_json,
)
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.opening import COMPACT, load_backbone
from embodied_midtrain.backbones.precision import Precision, quick_inference
from embodied_midtrain.diagnostics import lmms
from embodied_midtrain.diagnostics.abilities import Key, Question, consider, questions
from embodied_midtrain.diagnostics.kept import LEAST, print_retention, summarise
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.proximity.perplexity import answer_losses
from embodied_midtrain.proximity.select import read_selection
from embodied_midtrain.samples import BadSample, Pool, Sample, Turn
from embodied_midtrain.sources.opening import open_pool

FILE, ANSWERS = "retention.json", "answers.parquet"
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "ability", "source", "id")),
        ("right", pa.bool_()),
        ("right_other", pa.bool_()),
    ]
)
GENERAL = ("openclipart", "gcompris", "tuxpaint-stamps", "pysiogame", "sweethome3d", "povray", "gimp-help")


@dataclass(frozen=True)
class RetentionConfig:
    """What is asked. An ability is the sources of the pool that ask for it; give your own pool's names."""

    captions: tuple[str, ...] = GENERAL
    """Sources whose answers say what is seen."""
    ocr: tuple[str, ...] = ("document-qa", "document-pages", "handwritten-digits")
    """Sources that ask what is written."""
    charts: tuple[str, ...] = ("chart-qa", "data-charts")
    """Sources that ask about diagrams."""
    spatial: tuple[str, ...] = ("tabletop-scenes", "libero-scenes")
    """Sources that ask where things are."""
    domains: tuple[str, ...] = ()
    """Sources that are an ability each, under their own name: those of `emt capability --split held-out`."""
    questions: int = 200
    """Questions for each ability, as far as there are held-out samples."""
    choices: int = 10
    """Answers to choose from, the right one among them; fewer where the source knows no more."""
    score: Literal["sum", "mean"] = "sum"
    """An answer's whole log-likelihood (which short ones gain by), or that of its mean token (long ones do)."""
    wrong_pictures: bool = True
    """Ask everything again about another sample's picture: what is right then, the words alone gave away."""
    considered: int = 1000
    """Samples of a source that questions and wrong answers are drawn from."""
    batch_size: int = 32
    """Rows in one forward pass."""
    precision: Precision = "auto"
    """Of the arithmetic; auto: bf16 where the processor multiplies it natively."""
    seed: int = 0
    """For the draw of samples and of wrong answers."""

    @property
    def abilities(self) -> dict[str, tuple[str, ...]]:
        grouped = {"captions": self.captions, "ocr": self.ocr, "charts": self.charts, "spatial": self.spatial}
        # A domain of a group's name takes its place.
        return grouped | {name: (name,) for name in self.domains}

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if self.questions < 1 or self.choices < 2:
            raise ValueError(f"questions {self.questions}, choices {self.choices}: at least 1 and 2")
        if self.considered < self.choices:
            raise ValueError(f"considered {self.considered} is fewer than the {self.choices} choices")
        named = [source for sources in self.abilities.values() for source in sources]
        if len(set(named)) < len(named):
            raise ValueError(f"a source stands for two abilities: {' '.join(named)}")


def retention(
    out: Path,
    config: RetentionConfig,
    *,
    before: str,
    after: Sequence[str],
    pool: Pool,
    exclude: Sequence[Artifact] = (),
    overwrite: bool = False,
) -> Artifact:
    """Ask all models the same questions.

    The artifact holds `retention.json` (by ability: chance, each model's share with a Wilson interval, each adapted
    model against the first with McNemar's p and a paired bootstrap interval) and `answers.parquet` (model, ability,
    source, id, right, right_other: about another sample's picture).

    Args:
        before, after: backbones as `load_backbone` takes them.
        exclude: 'emt select' artifacts that a model was trained on; neither their samples nor others with the same
            picture are asked about.

    Raises:
        StageError: where no ability has questions, or a model cannot be had.
        ValueError: on settings that cannot be meant, or no model to compare.
    """
    config.check()
    if not after:
        raise ValueError("name at least one adapted model with --after")
    names = (before, *after)
    labels, prints = [], []
    for name in names:
        backbone = load_backbone(name)
        labels.append(backbone.name)
        prints.append(backbone.fingerprint())
        del backbone
    if len(set(labels)) < len(labels):
        labels = [f"{n} {label}" for n, label in enumerate(labels)]
    inputs: dict[str, Artifact | str] = {"pool": pool.fingerprint()}
    inputs |= {f"model {n} {label}": own for n, (label, own) in enumerate(zip(labels, prints, strict=True))}
    inputs |= {f"excluded {n}": selection for n, selection in enumerate(exclude)}
    with open_stage(out, "retention", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        asked = _asked(config, pool, {key for selection in exclude for key in read_selection(selection)})
        rows: list[dict[str, Any]] = []
        for n, (name, label) in enumerate(zip(names, labels, strict=True)):
            own = _answers(run, config, n, name, label, asked)
            rows += [{"model": label, **row} for row in own]
        write_json(run.file(FILE), summarise(rows, labels, asked, config))
        with atomic_path(run.file(ANSWERS)) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), temporary)
        run.skips.rows.extend(_not_asked(config, asked))
        return run.finish({"questions": {ability: len(own) for ability, own in asked.items()}, "models": len(labels)})


def _asked(config: RetentionConfig, pool: Pool, excluded: set[Key]) -> dict[str, list[Question]]:
    wanted = [source for sources in config.abilities.values() for source in sources]
    considered, seen = consider(pool, wanted, excluded, most=config.considered, seed=config.seed)
    asked = {
        ability: questions(
            ability,
            sources,
            considered,
            excluded,
            seen,
            count=config.questions,
            choices=config.choices,
            seed=config.seed,
        )
        for ability, sources in config.abilities.items()
        if sources
    }
    asked = {ability: own for ability, own in asked.items() if len(own) >= LEAST}
    if not asked:
        raise StageError(
            f"no ability has {LEAST} held-out questions in {pool.name}: name its sources with --captions, --ocr, "
            "--charts and --spatial, or give a pool that the models were not trained on ('emt pool build' with another "
            "--seed)."
        )
    return asked


def _not_asked(config: RetentionConfig, asked: dict[str, list[Question]]) -> list[dict[str, str]]:
    return [
        {"reason": "too few held-out questions", "where": ability, "detail": f"fewer than {LEAST}"}
        for ability in config.abilities
        if ability not in asked
    ]


def _answers(
    run: StageRun, config: RetentionConfig, number: int, name: str, label: str, asked: dict[str, list[Question]]
) -> list[dict[str, Any]]:
    """One model's answers, ability by ability; what a killed run had finished is not asked again."""
    backbone: Backbone | None = None
    rows: list[dict[str, Any]] = []
    with progress_bar(f"ask {label}", sum(map(len, asked.values()))) as bar:
        for ability, own in asked.items():
            part = run.part(f"{number:02d}-{ability}")
            if part is None:
                backbone = backbone or load_backbone(name)
                part = run.commit_part(f"{number:02d}-{ability}", {"answers": answer(backbone, own, config)})
            rows += part["answers"]
            bar.advance(len(own))
    return rows


def answer(backbone: Backbone, asked: Sequence[Question], config: RetentionConfig) -> list[dict[str, Any]]:
    """Whether the likeliest answer to each question is the right one, and about the wrong picture.

    Raises:
        StageError: where a question cannot be rendered for this model.
    """
    right = _right(backbone, asked, config, [q.sample for q in asked])
    other = _right(backbone, asked, config, [q.other for q in asked]) if config.wrong_pictures else [None] * len(asked)
    return [
        {"ability": q.ability, "source": q.sample.source, "id": q.sample.id, "right": a, "right_other": b}
        for q, a, b in zip(asked, right, other, strict=True)
    ]


def _right(
    backbone: Backbone, asked: Sequence[Question], config: RetentionConfig, shown: Sequence[Sample]
) -> list[bool]:
    found: list[bool] = []
    with quick_inference(backbone.base, backbone.device, config.precision):
        for at in range(0, len(asked), config.batch_size):
            some = list(zip(asked[at : at + config.batch_size], shown[at : at + config.batch_size], strict=True))
            rows = [_row(backbone, q, choice, sample) for q, sample in some for choice in q.choices]
            losses = answer_losses(backbone, rows, batch_size=config.batch_size, precision=config.precision)
            if config.score == "sum":
                losses = losses * np.array([sum(row.learnt[1:]) for row in rows], np.float32)
            start = 0
            for q, _ in some:
                found.append(int(losses[start : start + len(q.choices)].argmin()) == 0)
                start += len(q.choices)
    return found


def _row(backbone: Backbone, q: Question, choice: Turn, shown: Sample) -> Rendered:
    try:
        return backbone.render(replace(q.sample, pictures=shown.pictures, turns=(*q.asked, choice)))
    except BadSample as error:
        raise StageError(f"{backbone.name} cannot be asked about {'/'.join(q.sample.key)}: {error}") from error


def retention_command(
    out: Path,
    pool: str,
    after: tuple[str, ...],
    before: str = COMPACT,
    config: RetentionConfig = RetentionConfig(),
    exclude: tuple[Path, ...] = (),
    images: Path | None = None,
    lmms_eval: tuple[lmms.Task, ...] = (),
    lmms_model: str | None = None,
    lmms_arguments: tuple[str, ...] = (),
    dry_run: bool = False,
    overwrite: bool = False,
) -> None:
    """Ask a backbone the same held-out questions before and after it was adapted: what was kept, what was lost.

    With --lmms-eval, public benchmarks too, by lmms-eval (installed apart; --dry-run prints its commands only).

    Examples:
        emt retention --before compact --after runs/quickstart/midtrain/selected/model --pool runs/quickstart/pool \\
            --exclude runs/quickstart/select/estimator --out runs/quickstart/retention
        emt retention --after runs/adapted/model --pool runs/held-out --domains spatial grounding plan camera \\
            egocentric temporal action --out runs/abilities
        emt retention --before Qwen/Qwen3-VL-2B-Instruct --after runs/mine/midtrained/model --pool data/held-out.json \\
            --captions held-out --out runs/mine/retention --lmms-eval pope blink visulogic 3dsrbench spatialeval

    Args:
        out: folder for the result.
        pool: where the questions come from.
        after: adapted models; each is compared with the first.
        before: the model before.
        config: what is asked.
        exclude: selections that the models were trained on ('emt select' folders).
        images: folder that image paths in a conversation file start from.
        lmms_eval: benchmarks that lmms-eval runs on each model.
        lmms_model: lmms-eval's name for the kind of model, where it cannot be told.
        lmms_arguments: words that are passed on to lmms-eval, such as "--batch_size 8".
        dry_run: print lmms-eval's commands and do nothing.
        overwrite: replace a result that was made from other inputs or settings.
    """
    folder = out / "lmms-eval"
    models = (before, *after)
    calls = [
        lmms.Call(name, lmms_model or lmms.kind_of(name), lmms_eval, folder / f"{n:02d}", lmms_arguments)
        for n, name in enumerate(models if lmms_eval else ())
    ]
    if dry_run:
        print("\n".join(call.shown() for call in calls) or "nothing to run: name benchmarks with --lmms-eval")
        return
    if calls:
        lmms.check_installed()
    selections = [Artifact.open(path, "select") for path in exclude]
    opened = open_pool(pool, images=images, skips=Skips())
    artifact = retention(
        out / "questions" if calls else out,
        config,
        before=before,
        after=after,
        pool=opened,
        exclude=selections,
        overwrite=overwrite,
    )
    facts = read_json(artifact.file(FILE))
    if calls:
        facts["lmms"] = lmms.run_all(calls, facts["models"])
        write_json(out / FILE, facts)
    print_retention(facts)
