"""`emt report`: one self-contained HTML page from a recipe run.

The page holds everything inside itself (images, videos, style, script) and asks the network for nothing: its content
security policy forbids it, and allows no script but the page's own, by its hash. Whatever comes from data sets is
text to the templates and is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from embodied_midtrain.artifacts import (
    Artifact,
    file_sha256,
    fingerprint_of,
    open_stage,
    to_plain,
    write_atomic,
)
from embodied_midtrain.extras import require
from embodied_midtrain.report.answer import percent
from embodied_midtrain.report.charts import short
from embodied_midtrain.report.gallery import Reader
from embodied_midtrain.report.study import STUDY, load_study_summary
from embodied_midtrain.report.study_terminal import print_study
from embodied_midtrain.report.summary import Summary, load_summary
from embodied_midtrain.report.tables import Key
from embodied_midtrain.report.terminal import print_summary
from embodied_midtrain.report.view import Limits, View, build_view
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.opening import read_samples
from embodied_midtrain.sources.places import absolute

PAGE = "report.html"
TEMPLATES = Path(__file__).with_name("templates")
SECTIONS = (
    ("results", "Success"),
    ("gap", "Gap"),
    ("proximity", "Proximity"),
    ("audit", "Audit"),
    ("selection", "Selection"),
    ("gallery", "Gallery"),
    ("training", "Training"),
    ("rollouts", "Rollouts"),
    ("manifest", "Manifest"),
    ("run", "Run"),
)


@dataclass(frozen=True)
class ReportConfig:
    """What the page holds."""

    limits: Limits = field(default_factory=Limits)
    """How much of the run goes into the page."""


def report(out: Path, *, run: Path, config: ReportConfig = ReportConfig()) -> Artifact:
    """Write OUT/report.html from RUN/summary.json and the files that it names.

    A page holds nothing of its own, so one that was drawn from an older summary is replaced without asking. Parts
    that the run does not have are marked "not run"; files that cannot be read are named on the page.

    Raises:
        StageError: where there is no summary, or it does not fit this version's types.
    """
    summary = load_summary(run)
    inputs = {"run": _fingerprint(run, summary), "drawn by": drawn_by()}
    with open_stage(out, "report", config, inputs, overwrite=True) as stage:
        if stage.done:
            return stage.artifact()
        view = build_view(run, summary, pool_reader(run, summary), config.limits)
        page = render(view)
        write_atomic(stage.file(PAGE), page)
        for part, text in view.notices.items():
            stage.skips.add("unreadable", part, text)
        return stage.finish({"bytes": len(page.encode()), "videos": len(view.clips.shown)})


def render(view: View) -> str:
    """The whole page as one text."""
    return draw("page.html.j2", view=view, sections=SECTIONS, figures=key_figures(view.summary))


def draw(template: str, **values: Any) -> str:
    """A page from one of the templates, with everything inside itself."""
    jinja2 = require("jinja2", "report")
    markup = require("markupsafe", "report").Markup
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        percent=percent, short=short, duration=duration, gigabytes=gigabytes, signed=signed, moment=moment
    )
    script = (TEMPLATES / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text: str = environment.get_template(template).render(
        **values,
        style=markup((TEMPLATES / "style.css").read_text()),
        script=markup(script),
        script_hash=f"sha256-{digest}",
    )
    return text


def key_figures(summary: Summary) -> list[tuple[str, str, str]]:
    """The row of large figures under the answer: (name, value, note)."""
    figures = []
    if summary.pool and summary.pool.sources:
        samples = sum(s.samples for s in summary.pool.sources)
        figures.append(("Pool", f"{samples:,}", f"samples of {len(summary.pool.sources)} sources"))
    if summary.target:
        tasks = len(summary.target.tasks)
        figures.append(("Target", f"{summary.target.frames:,}", f"frames of {tasks} task{'s' * (tasks != 1)}"))
    if summary.selections:
        figures.append(("Selected", f"{max(s.size for s in summary.selections):,}", "samples a variant"))
    if summary.estimator:
        figures.append(("Estimator", percent(summary.estimator.validation_accuracy), "of held-out told apart"))
    if summary.rollouts:
        figures.append(("Rollouts", f"{sum(r.episodes for r in summary.rollouts):,}", "closed-loop episodes"))
    if summary.stages:
        peaks = [s.peak_memory_bytes for s in summary.stages if s.peak_memory_bytes]
        note = f"peak memory {gigabytes(max(peaks))}" if peaks else f"{len(summary.stages)} stages"
        figures.append(("Time", duration(sum(s.seconds for s in summary.stages)), note))
    return figures


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def gigabytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def signed(share: float) -> str:
    """A difference in percentage points, with a real minus sign."""
    points = round(100 * share)
    return f"{points:+d}".replace("-", "−") if points else "0"


def moment(text: str) -> str:
    """An ISO 8601 time as people write it; the text itself where it is none."""
    try:
        return f"{datetime.fromisoformat(text):%d %b %Y, %H:%M %Z}".rstrip(", ")
    except ValueError:
        return text


def pool_reader(run: Path, summary: Summary) -> Reader | None:
    """Reads samples of the run's pool by key; None where the run has none."""
    if not summary.files.pool:
        return None
    pool = absolute(summary.files.pool, run)
    images = Path(summary.files.images) if summary.files.images else None

    def read(keys: list[Key]) -> Mapping[Key, Sample]:
        # In the order in which they lie in the files: each is then opened once.
        return {sample.key: sample for sample in read_samples(pool, sorted(set(keys)), images=images)}

    return read


def _fingerprint(run: Path, summary: Summary) -> str:
    """Changes with the summary and with any file that the page reads."""
    files = summary.files
    names = [files.map, files.scores, *(s.table for s in summary.selections), *(v.path for v in summary.videos)]
    facts: dict[str, Any] = {"summary": to_plain(summary)}
    for name in names:
        path = run / name
        facts[name] = file_sha256(path) if name and path.is_file() else "missing"
    if files.pool and (run / files.pool / "manifest.json").is_file():
        facts["pool"] = file_sha256(run / files.pool / "manifest.json")
    return fingerprint_of(facts)


def drawn_by() -> str:
    """Changes with the code and the templates of this room: another version draws the page again."""
    room = TEMPLATES.parent
    files = sorted(path for path in (*room.glob("*.py"), *TEMPLATES.iterdir()))
    return fingerprint_of({path.name: file_sha256(path) for path in files})


def report_command(run: Path, out: Path | None = None, config: ReportConfig = ReportConfig()) -> None:
    """Write one self-contained HTML page with everything that a recipe run, or a study, found.

    Examples:
        emt report --run runs/quickstart
        emt report --run runs/quickstart --out /tmp/page --video-megabytes 1
        emt report --run runs/my-study

    Args:
        run: folder of a recipe run or of a study, finished or not.
        out: folder for the page; RUN/report where it is not given.
    """
    if (run / STUDY).is_file():
        from embodied_midtrain.report.study_page import study_report

        page = study_report(out or run / "report", study=run).file(PAGE)
        print_study(load_study_summary(run), page)
        return
    artifact = report(out or run / "report", run=run, config=config)
    print_summary(load_summary(run), artifact.file(PAGE))
