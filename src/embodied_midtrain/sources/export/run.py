"""`emt export`: a selection with its images, in the form of the tool that is going to train on it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from embodied_midtrain.artifacts import (
    Artifact,
    Skips,
    StageError,
    StageRun,
    open_stage,
    read_json,
    refuse_if_bad,
    share_of,
    write_atomic,
    write_json,
)
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.samples import BadSample, Pool, Sample
from embodied_midtrain.sources.export.conversations import drop_lines
from embodied_midtrain.sources.export.coordinates import READ_AS, Coordinates
from embodied_midtrain.sources.export.form import Form
from embodied_midtrain.sources.export.llava import LlavaForm
from embodied_midtrain.sources.export.parquet import ParquetForm
from embodied_midtrain.sources.export.qwen import QwenForm
from embodied_midtrain.sources.export.row import Row, make_rows
from embodied_midtrain.sources.export.selection import Line, Selection
from embodied_midtrain.sources.export.sharegpt import ShareGptForm
from embodied_midtrain.sources.export.webdataset import WebDatasetForm
from embodied_midtrain.sources.opening import EXPORT_STAGE, POOL_FILE, open_pool

COMPOSITION = "composition.json"
Format = Literal["sharegpt", "qwen", "llava", "webdataset", "parquet"]
FORMS: dict[str, type[Form]] = {
    "sharegpt": ShareGptForm,
    "qwen": QwenForm,
    "llava": LlavaForm,
    "webdataset": WebDatasetForm,
    "parquet": ParquetForm,
}


@dataclass(frozen=True)
class ExportConfig:
    """What form the samples take."""

    format: Format
    """sharegpt: LLaMA-Factory, with its dataset_info.json. qwen: Qwen's own qwen-vl-finetune. llava: LLaVA's JSON.
    webdataset: tar shards. parquet: Hugging Face datasets."""
    coordinates: Literal["auto", "unit", "thousand", "pixels", "qwen2.5"] = "auto"
    """How points and boxes are written: 0 to 1, 0 to 1000 (Qwen3-VL, InternVL), pixels of the image file, or pixels of
    the image as Qwen2.5-VL scales it. auto: thousand for sharegpt and qwen, unit for the others."""
    name: str = "selection"
    """Of the data set, where the form has one."""
    decode: bool = True
    """Decode every image to find broken ones, or read their headers only."""
    part_samples: int = 1000
    """Samples in one part (a shard, a file): what a killed run loses at most."""
    part_megabytes: int = 128
    """Images that make a part full before that, and so what is held in memory."""

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if self.part_samples < 1 or self.part_megabytes < 1:
            raise ValueError("a part holds at least one sample and one megabyte")
        if not self.name.isidentifier():
            raise ValueError(f"the name {self.name!r} is to be used as one word: letters, digits, underscores")

    def written(self) -> Coordinates:
        """What auto stands for."""
        return FORMS[self.format].coordinates if self.coordinates == "auto" else self.coordinates


def export(
    out: Path,
    config: ExportConfig,
    *,
    selection: Selection,
    pool: Pool,
    max_bad: float = 0.01,
    overwrite: bool = False,
) -> Artifact:
    """Write the chosen samples, in the pool's order; one pass over the pool, a part of them in memory.

    The artifact holds the form's files, `composition.json` (by source: share of the selection and of what was
    written, counts, repeats) and `pool.yaml`, by which `emt` itself reads it as a pool.

    Raises:
        StageError: where chosen samples are not in the pool, or more than `max_bad` of them cannot be used.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    inputs = {"selection": selection.fingerprint, "pool": pool.fingerprint()}
    with open_stage(out, EXPORT_STAGE, config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        form = FORMS[config.format](config.name)
        records = _parts(run, config, form, selection, pool, max_bad)
        missing = selection.not_taken()
        if missing:
            first = ", ".join(f"{id!r} of {source!r}" for source, id in missing[:3])
            raise StageError(
                f"{len(missing)} of the {len(selection)} samples of the selection are not in the pool {pool.name} or "
                f"cannot be read there, such as {first}; give the pool that the selection was made from."
            )
        written = sum(record["rows"] for record in records)
        if not written:
            raise StageError(f"no sample could be exported: {Skips(_faults(records)).summary()}")
        form.finish(run, len(records))
        write_atomic(run.file(POOL_FILE), _as_pool(form, config.written()))
        write_json(run.file(COMPOSITION), composition(selection.by_source(), records))
        artifact = run.finish({"selected": len(selection), "exported": written}, coordinates=config.written())
        drop_lines(out)
        return artifact


def _parts(
    run: StageRun, config: ExportConfig, form: Form, selection: Selection, pool: Pool, max_bad: float
) -> list[dict[str, Any]]:
    """The records of all parts; those that were written before are passed over without reading an image."""
    records: list[dict[str, Any]] = []
    hits = ((sample, lines) for sample in pool if (lines := selection.take(sample.key)))
    rows, faults = 0, []
    with progress_bar(f"export {pool.name}", len(selection)) as bar:
        while True:
            key = f"part-{len(records):05d}"
            record = run.part(key)
            if record is not None:
                for _ in itertools.islice(hits, record["hits"]):
                    pass
            else:
                part, taken, skips = _fill(hits, config, form, rows)
                if not taken:
                    return records
                counts = Counter((row.facts["source"], row.repeated) for row in part)
                facts = {
                    "hits": taken,
                    "rows": len(part),
                    "exported": {s: counts[s, False] + counts[s, True] for s, _ in sorted(counts)},
                    "repeated": {s: n for (s, repeated), n in sorted(counts.items()) if repeated},
                }
                record = run.commit_part(key, facts, form.writers(len(records), part), skips)
            records.append(record)
            rows += record["rows"]
            faults += record["skipped"]
            bar.advance(record["rows"] + len(record["skipped"]))
            refuse_if_bad(run, rows, len(faults), max_bad, faults.copy)


def _fill(
    hits: Iterator[tuple[Sample, list[Line]]], config: ExportConfig, form: Form, first: int
) -> tuple[list[Row], int, Skips]:
    """The rows of one part, how many samples they took, and what could not be used."""
    rows: list[Row] = []
    skips, taken, size = Skips(), 0, 0
    for sample, lines in hits:
        taken += 1
        try:
            made = make_rows(
                sample,
                lines,
                first + len(rows),
                coordinates=config.written(),
                reserved=form.reserved,
                decode=config.decode,
            )
            rows += made
            size += sum(len(picture.data) for picture in made[0].pictures)
        except BadSample as error:
            skips.add(error.reason, "/".join(sample.key), error.detail)
        if taken >= config.part_samples or size >= config.part_megabytes << 20:
            break
    return rows, taken, skips


def _faults(records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [row for record in records for row in record["skipped"]]


def _as_pool(form: Form, coordinates: Coordinates) -> str:
    source: dict[str, Any] = {"path": form.files, "format": form.kind, "name": form.name}
    if form.kind == "conversations":
        source["images"] = "."
    if coordinates in READ_AS:
        source["fields"] = {"coordinates": READ_AS[coordinates]}
    return yaml.safe_dump({"sources": [source]}, sort_keys=False)


def composition(selected: Counter[str], records: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | int]]:
    """By source: share of the selection (target) and of the rows written (realised), counts, repeats."""
    exported, repeated = Counter[str](), Counter[str]()
    for record in records:
        exported.update(record["exported"])
        repeated.update(record["repeated"])
    all_selected, all_exported = selected.total(), exported.total()
    return {
        source: {
            "target": round(count / all_selected, 6),
            "realised": round(exported[source] / all_exported, 6),
            "selected": count,
            "exported": exported[source],
            "repeated": repeated[source],
        }
        for source, count in sorted(selected.items())
    }


def export_command(
    selection: Path,
    pool: str,
    out: Path,
    config: ExportConfig,
    images: Path | None = None,
    max_bad: str = "1%",
    overwrite: bool = False,
) -> None:
    """Write a selection with its images, in the form of the tool that is going to train on it.

    Image files are copied as they are (JPEG, PNG) or turned into PNG. Give the same command again after an
    interruption: finished parts are kept.

    Examples:
        emt export --selection runs/mine/selected --pool data/llava.json --images data/images --format sharegpt \\
            --out exports/llama-factory
        emt export --selection runs/mine/selected --pool "data/cc12m/{00000..01242}.tar" --format qwen \\
            --coordinates qwen2.5 --out exports/qwen2.5-vl
        emt export --selection runs/quickstart/select/estimator --pool runs/quickstart/pool --format parquet \\
            --out exports/parquet

    Args:
        selection: an 'emt select' folder, or a Parquet file with columns source and id (score, rank and reason are
            kept where it has them); a sample may stand there several times.
        pool: the pool that the selection was made from, as for 'emt embed'.
        out: folder for the result.
        images: folder that image paths of the pool start from.
        max_bad: share of samples that may be left out; past it the run stops (what was finished is kept).
        overwrite: replace a result that was made from other inputs or settings.
    """
    artifact = export(
        out,
        config,
        selection=Selection.open(selection),
        pool=open_pool(pool, images=images, skips=Skips()),
        max_bad=share_of(max_bad),
        overwrite=overwrite,
    )
    print(f"{'source':<24}{'target':>8}{'realised':>10}{'selected':>10}{'exported':>10}{'repeated':>10}")
    for name, row in read_json(artifact.file(COMPOSITION)).items():
        print(
            f"{name:<24}{row['target']:>8.1%}{row['realised']:>10.1%}"
            f"{row['selected']:>10}{row['exported']:>10}{row['repeated']:>10}"
        )
    skipped = ", ".join(f"{n} {reason}" for reason, n in artifact.counts["skipped"].items()) or "none"
    print(f"{artifact.counts['exported']} samples in {out}, coordinates: {config.written()}; skipped: {skipped}")
    print(FORMS[config.format](config.name).hint(out))
