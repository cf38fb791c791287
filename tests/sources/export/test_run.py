"""The stage: resume, refusal, what is left out, what is counted."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import ArtifactMismatch, Skips, StageError, read_json
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.export.run import FORMS, ExportConfig, export, export_command
from embodied_midtrain.sources.opening import open_pool

from .pools import Made, choose, chosen, encoded, sample


def files(folder: Path) -> dict[str, bytes]:
    """What an export consists of, without what may differ between equal runs."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(("logs", ".lock"))}


def some(count: int = 10) -> list[Sample]:
    """With one image, two, none; an image of two samples."""
    shapes = [[encoded(seed=n)] for n in range(count)]
    shapes[3], shapes[4], shapes[5] = [], [encoded("JPEG"), encoded(seed=1)], shapes[6]
    return [sample(f"{n}/../ü.{n}", "ab"[n % 2], pictures) for n, pictures in enumerate(shapes)]


class Dies(Made):
    """Breaks off after so many samples, as a killed run does."""

    def __init__(self, samples: list[Sample], after: int) -> None:
        super().__init__(samples)
        self.after = after

    def __iter__(self):
        for number, one in enumerate(self.samples):
            if number == self.after:
                raise KeyboardInterrupt
            yield one


@pytest.mark.parametrize("format", FORMS)
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, format) -> None:
    samples, config = some(), ExportConfig(format, part_samples=3)
    whole = export(tmp_path / "whole", config, selection=choose(samples), pool=Made(samples))
    for after in (2, 7, 9):
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path / "cut", config, selection=choose(samples), pool=Dies(samples, after))
    export(tmp_path / "cut", config, selection=choose(samples), pool=Made(samples))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert whole.counts == {"selected": 10, "exported": 10, "skipped": {}}
    again = export(tmp_path / "cut", config, selection=choose(samples), pool=Dies(samples, 0))
    assert again.manifest == whole.manifest


@pytest.mark.parametrize("format", FORMS)
def test_no_id_becomes_a_path(tmp_path: Path, format) -> None:
    samples = some()
    export(tmp_path / "out" / "here", ExportConfig(format), selection=choose(samples), pool=Made(samples))
    assert [path.name for path in tmp_path.rglob("*") if "ü" in path.name] == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["here"]
    read = {one.id for one in open_pool(tmp_path / "out" / "here", skips=Skips())}
    if format != "webdataset":  # there the key names it
        assert read == {one.id for one in samples}


def test_only_the_chosen_and_equal_images_once(tmp_path: Path) -> None:
    samples = some()
    picked = [samples[n].key for n in (6, 5, 0)]
    artifact = export(tmp_path, ExportConfig("llava"), selection=chosen(picked), pool=Made(samples))
    records = read_json(artifact.file("data.json"))
    assert [(r["source"], r["id"], r["rank"]) for r in records] == [
        (*samples[n].key, r) for n, r in ((0, 2), (5, 1), (6, 0))
    ]
    assert len(list(tmp_path.glob("images/*/*"))) == 2
    assert all(re.fullmatch(r"images/[0-9a-f]{2}/[0-9a-f]{32}\.(png|jpg)", r["image"]) for r in records)


def test_a_sample_that_the_pool_lacks(tmp_path: Path) -> None:
    samples = some()
    picked = chosen([samples[0].key, ("a", "gone"), ("c", "9")])
    with pytest.raises(StageError, match=r"2 of the 3 samples .* such as 'gone' of 'a', '9' of 'c'; give the pool"):
        export(tmp_path, ExportConfig("qwen"), selection=picked, pool=Made(samples))


def test_bad_ones_are_counted_and_too_many_refused(tmp_path: Path) -> None:
    samples = [sample(str(n), "s", [encoded(seed=n)]) for n in range(150)]
    bad = [*samples[:100], sample("cut", "s", [b"\xff\xd8\xff"]), sample("empty", "t", [b""]), *samples[100:]]
    artifact = export(tmp_path / "1", ExportConfig("llava"), selection=choose(bad), pool=Made(bad), max_bad=0.02)
    assert artifact.counts == {"selected": 152, "exported": 150, "skipped": {"broken image": 1, "empty image": 1}}
    rows = [json.loads(line) for line in (tmp_path / "1" / "skipped.jsonl").read_text().splitlines()]
    assert [row["where"] for row in rows] == ["s/cut", "t/empty"]
    table = read_json(tmp_path / "1" / "composition.json")
    assert table["t"] == {"target": 0.006579, "realised": 0.0, "selected": 1, "exported": 0, "repeated": 0}
    with pytest.raises(StageError, match="allow more with --max-bad"):
        export(tmp_path / "2", ExportConfig("llava"), selection=choose(bad), pool=Made(bad))
    with pytest.raises(StageError, match="no sample could be exported: 1 empty image"):
        export(tmp_path / "3", ExportConfig("llava"), selection=chosen([("t", "empty")]), pool=Made(bad))


def test_composition_counts_repeats(tmp_path: Path) -> None:
    samples = some()[:6]
    keys = [one.key for one in samples] + [samples[0].key] * 2 + [samples[1].key]
    export(tmp_path, ExportConfig("llava", part_samples=2), selection=chosen(keys), pool=Made(samples))
    table = read_json(tmp_path / "composition.json")
    assert table["a"] == {"target": 0.555556, "realised": 0.555556, "selected": 5, "exported": 5, "repeated": 2}
    assert table["b"]["repeated"] == 1
    skips = Skips()
    back = list(open_pool(tmp_path, skips=skips))
    assert len(back) == 9 and not skips.rows


def test_other_inputs_are_refused_by_name(tmp_path: Path) -> None:
    samples = some()
    export(tmp_path, ExportConfig("llava"), selection=choose(samples), pool=Made(samples))
    with pytest.raises(ArtifactMismatch, match="inputs selection"):
        export(tmp_path, ExportConfig("llava"), selection=chosen([samples[0].key], "other"), pool=Made(samples))
    with pytest.raises(ArtifactMismatch, match="config format"):
        export(tmp_path, ExportConfig("qwen"), selection=choose(samples), pool=Made(samples))


def test_a_part_is_full_by_bytes(tmp_path: Path) -> None:
    samples = [sample(str(n), pictures=[encoded("BMP", (700, 700), seed=n)]) for n in range(5)]
    config = ExportConfig("webdataset", part_megabytes=2)
    export(tmp_path, config, selection=choose(samples), pool=Made(samples))
    assert len(list(tmp_path.glob("*.tar"))) == 3


@pytest.mark.parametrize("setting", [{"part_samples": 0}, {"name": "two words"}])
def test_settings_that_cannot_be_meant(tmp_path: Path, setting: dict) -> None:
    with pytest.raises(ValueError, match=r"at least one|one word"):
        export(tmp_path, ExportConfig("llava", **setting), selection=choose(some()), pool=Made([]))


def test_the_command_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = some()
    export(tmp_path / "pool", ExportConfig("llava"), selection=choose(samples), pool=Made(samples))
    pq.write_table(
        pa.table({"source": [s.source for s in samples], "id": [s.id for s in samples]}), tmp_path / "all.parquet"
    )
    for format in FORMS:
        export_command(tmp_path / "all.parquet", str(tmp_path / "pool"), tmp_path / format, ExportConfig(format))
        said = capsys.readouterr().out
        assert "10 samples in" in said and str(tmp_path / format) in said.splitlines()[-1]
        assert re.search(r"^a +50\.0% +50\.0% +5 +5 +0$", said, re.MULTILINE)
