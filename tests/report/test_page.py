"""The page as a file: self-contained, escaped, the same for the same run, whole where parts of the run are missing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.report.page import (
    PAGE,
    ReportConfig,
    duration,
    moment,
    pool_reader,
    render,
    report,
    signed,
)
from embodied_midtrain.report.summary import AuditLeak, Files, Summary, Video, load_summary, save_summary
from embodied_midtrain.report.view import Limits, build_view

from .fixture import HOSTILE

PARTS = (
    "stages", "pool", "target", "estimator", "proximity", "audit", "mmd", "diversity", "selections", "selectors",
    "midtrain",
    "policies", "rollouts", "variants", "comparisons", "videos", "files", "provenance",
)  # fmt: skip


SMALL = Limits(overall=2, per_source=1, image_side=32, video_megabytes=0.0, rows=5)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run that a test may damage."""
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    return tmp_path / "run"


def drawn(run: Path, limits: Limits | None = None) -> str:
    config = ReportConfig(limits or Limits())
    return report(run / "report", run=run, config=config).file(PAGE).read_text()


def test_selectors_stand_side_by_side(page: Path) -> None:
    text = page.read_text()
    table = text[text.index("What other selectors make of this pool") :]
    row = table.replace("\xa0", " ")
    row = row[row.index('<tr><th scope="row">knn-distance</th>') :]
    cells = re.findall(r'<td class="num">(.*?)<br><small>(.*?)</small>', row)[:3]
    assert cells == [("−0.71", "37 %"), ("1.00", "37 %"), ("–", "37 %")]


def test_p_is_shown_alone_and_corrected(page: Path) -> None:
    shown = re.findall(r", p = ([\d.]+)(?:, Holm ([\d.]+))?", page.read_text())
    assert shown == [("0.01", "0.03"), ("0.87", "0.87"), ("0.012", "0.03"), ("0.006", "")]


def test_everything_is_inside_the_page(page: Path) -> None:
    found: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name in ("src", "href", "srcset", "poster", "action"))

    text = page.read_text()
    Parser().feed(text)
    assert len(found) > 100
    assert {value.split(":")[0] if ":" in value else value[0] for value in found} == {"data", "#"}
    assert "url(" not in text and "@import" not in text
    assert len(text) < 8e6


def test_only_the_pages_own_script_is_allowed(page: Path) -> None:
    text = page.read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1] and f"script-src 'sha256-{digest}'" in policy[1]


def test_the_audit_is_shown_with_its_verdict_first(page: Path) -> None:
    text = page.read_text()
    audit = text[text.index('<section id="audit"') : text.index('<section id="selection"')]
    assert audit.index("Verdict: partly a shortcut: image size") < audit.index("look here") < audit.index("93 %")
    assert "tabletop/00003 shows reach-v3/demo_1/0012" in audit and "Not looked at: other prompt." in audit


def test_hostile_text_is_escaped(page: Path) -> None:
    text = page.read_text()
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False).replace('"', "&#34;").replace("'", "&#39;") in text


def test_hostile_names_are_escaped_too(copy: Path) -> None:
    summary = load_summary(copy)
    changed = dataclasses.replace(
        summary,
        name=HOSTILE,
        benchmark=HOSTILE,
        machine=HOSTILE,
        faults=(HOSTILE,),
        mmd=dataclasses.replace(summary.mmd, names=(HOSTILE, *summary.mmd.names[1:])),
        variants=tuple(dataclasses.replace(v, title=HOSTILE) for v in summary.variants),
        comparisons=tuple(dataclasses.replace(c, verdict=HOSTILE) for c in summary.comparisons),
        estimator=dataclasses.replace(summary.estimator, notes=(HOSTILE,)),
        audit=dataclasses.replace(
            summary.audit, verdict=HOSTILE, not_run=(HOSTILE,), leaks=(AuditLeak(HOSTILE, HOSTILE, HOSTILE, 0),)
        ),
        provenance=dataclasses.replace(summary.provenance, recipe=HOSTILE, command=HOSTILE),
    )
    save_summary(copy, changed)
    text = drawn(copy, SMALL)
    assert "<script>document" not in text and "<img src=x" not in text
    assert text.count("&lt;script&gt;document") > 20


def test_the_same_run_gives_the_same_page_and_is_drawn_once(run: Path, page: Path, tmp_path: Path) -> None:
    written = page.stat().st_mtime_ns
    again = report(page.parent, run=run)
    assert again.file(PAGE).stat().st_mtime_ns == written
    elsewhere = report(tmp_path / "other", run=run)
    assert elsewhere.file(PAGE).read_bytes() == page.read_bytes()


def test_a_changed_run_is_drawn_again(copy: Path) -> None:
    before = drawn(copy, SMALL)
    save_summary(copy, dataclasses.replace(load_summary(copy), name="second"))
    after = drawn(copy, SMALL)
    assert "<title>second" in after and "<title>second" not in before


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    save_summary(tmp_path, Summary("begun", state="partial"))
    text = drawn(tmp_path)
    assert "No answer yet" in text and "This run is not finished" in text
    assert text.count("Not run.") >= 12


@pytest.mark.parametrize("part", PARTS)
def test_any_part_may_be_missing(run: Path, part: str) -> None:
    summary = dataclasses.replace(load_summary(run), **{part: getattr(Summary("empty"), part)})
    assert "</html>" in render(build_view(run, summary, pool_reader(run, summary), SMALL))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gap/map.parquet", "gap/map.parquet is missing"),
        ("select/estimator/scores.parquet", "select/estimator/scores.parquet is missing"),
        ("select/random/selection.parquet", "select/random/selection.parquet is missing"),
        ("pool/samples.parquet", "samples.parquet is missing"),
        ("rollouts/random/videos/reach-v3-00.mp4", "rollouts/random/videos/reach-v3-00.mp4 is missing"),
    ],
)
def test_a_missing_file_is_named_on_the_page(copy: Path, name: str, said: str) -> None:
    (copy / name).unlink()
    assert said in drawn(copy)


@pytest.mark.parametrize("content", [b"", b"PAR1 no table PAR1"], ids=["empty", "damaged"])
def test_damaged_files_are_named_on_the_page(copy: Path, content: bytes) -> None:
    (copy / "gap/map.parquet").write_bytes(content)
    (copy / "rollouts/random/videos/reach-v3-00.mp4").write_bytes(content)
    text = drawn(copy)
    assert "gap/map.parquet is not a readable Parquet file" in text
    assert "reach-v3-00.mp4 is not a readable video" in text


def test_a_file_outside_the_run_is_not_read(copy: Path) -> None:
    shutil.copy(copy / "gap/map.parquet", copy.parent / "map.parquet")
    summary = load_summary(copy)
    video = Video("../secret.mp4", "random", "reach-v3", True)
    files = dataclasses.replace(summary.files, map="../map.parquet")
    save_summary(copy, dataclasses.replace(summary, files=files, videos=(video,)))
    text = drawn(copy, SMALL)
    assert "../map.parquet is outside the run&#39;s folder" in text
    assert "../secret.mp4 is outside the run&#39;s folder" in text


def test_broken_and_missing_pictures_are_said_on_their_cards(page: Path) -> None:
    text = page.read_text()
    assert "broken image" in text
    cards = text.split('<figure class="sample')
    assert any("not found in the pool" in card or "text only" in card or "broken image" in card for card in cards[1:])


def test_limits_hold(copy: Path) -> None:
    small = drawn(copy, SMALL)
    assert small.count('<figure class="sample') == 4 + 2 * 8
    assert "<video" not in small and "left out: the page would grow too large" in small
    assert small.count('<tr data-source="') == 10


def test_no_summary_no_page(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"has no summary\.json"):
        report(tmp_path / "report", run=tmp_path)


def test_a_summary_of_another_version_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"name": "x", "estimater": null}')
    with pytest.raises(StageError, match="did you mean 'estimator'"):
        report(tmp_path / "report", run=tmp_path)


def test_a_users_own_pool_is_read_by_its_full_path(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "pool", tmp_path / "mine")
    save_summary(copy, dataclasses.replace(load_summary(copy), files=Files(
        pool=str(tmp_path / "mine"), scores="select/estimator/scores.parquet",
    )))  # fmt: skip
    assert drawn(copy, SMALL).count('<figure class="sample') == 4 + 2 * 8


def test_small_texts() -> None:
    assert (duration(4.21), duration(75), duration(7320)) == ("4.2 s", "1 min 15 s", "2 h 02 min")
    assert (signed(-0.126), signed(0.1), signed(-0.001)) == ("−13", "+10", "0")
    assert moment("2026-11-20T22:00:00+00:00") == "20 Nov 2026, 22:00 UTC"
    assert (moment("2026-11-20T22:00:00"), moment("yesterday")) == ("20 Nov 2026, 22:00", "yesterday")
