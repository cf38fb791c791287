"""Whatever is exported is read back: by our own readers, and by the tools that the forms are for."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embodied_midtrain.artifacts import Skips
from embodied_midtrain.samples import Region, Sample, Turn
from embodied_midtrain.sources.export.run import FORMS, ExportConfig, export
from embodied_midtrain.sources.opening import open_pool

from .pools import Made, choose, encoded, sample

READBACK = Path(__file__).parents[3] / "tools" / "readback.py"
PICTURES = [encoded("PNG", seed=0), encoded("JPEG", seed=1), encoded("PNG", seed=2)]
# No digits: "(1, 2)" in a text would be read as a point where points are looked for.
words = st.text(st.characters(exclude_categories=["Cs", "Nd", "No", "Nl"], exclude_characters="<>"), max_size=20)
unit = st.floats(0, 1)


@st.composite
def turn(draw: st.DrawFn, role: Any) -> Turn:
    pieces = [draw(words) + "."]
    regions = []
    for _ in range(draw(st.integers(0, 2))):
        x0, x1 = sorted(draw(st.tuples(unit, unit)))
        y0, y1 = sorted(draw(st.tuples(unit, unit)))
        regions.append(Region("box", (x0, y0, x1, y1)) if draw(st.booleans()) else Region("point", (x0, y0)))
        pieces.append(draw(words) + ".")
    return Turn(role, " <region> ".join(pieces).strip(), tuple(regions))


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    found = []
    keys = draw(st.lists(st.tuples(words.filter(bool), words.filter(bool)), min_size=1, max_size=6, unique=True))
    for source, id in keys:
        pictures = draw(st.lists(st.sampled_from(PICTURES), max_size=3))
        pairs = draw(st.integers(1, 2))
        turns = [draw(turn(role)) for _ in range(pairs) for role in ("user", "assistant")]
        found.append(sample(id, source, pictures, turns))
    return found


def matches(ours: Sample, back: Sample, form: str) -> None:
    assert back.source == ours.source
    if form != "webdataset":  # its key names a sample there
        assert back.id == ours.id
    assert [t.role for t in back.turns] == [t.role for t in ours.turns]
    assert [t.text.split() for t in back.turns] == [t.text.split() for t in ours.turns]
    assert [p.read() for p in back.pictures] == [p.read() for p in ours.pictures]
    for a, b in zip(ours.turns, back.turns, strict=True):
        assert [r.kind for r in a.regions] == [r.kind for r in b.regions]
        for first, second in zip(a.regions, b.regions, strict=True):
            assert second.values == pytest.approx(first.values, abs=0.0005 + 1e-9)
    assert back.licence == ours.licence


def _key(sample: Sample) -> tuple[str, str]:
    return sample.key


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(given=samples())
@example(given=[sample("no image"), sample("0", "..", PICTURES), sample("/", "/", PICTURES[:1])])
def test_our_own_readers(form: Any, given: list[Sample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        # The file's name goes before ids where there are several files.
        parts = 100 if form in ("webdataset", "parquet") else 2
        export(out, ExportConfig(form, part_samples=parts), selection=choose(given), pool=Made(given), max_bad=0)
        skips = Skips()
        back = list(open_pool(out, skips=skips))
        assert not skips.rows
        assert len(back) == len(given)
        if form == "sharegpt":  # one with an image comes first
            given, back = sorted(given, key=_key), sorted(back, key=_key)
        for ours, theirs in zip(given, back, strict=True):
            matches(ours, theirs, form)


@pytest.fixture(scope="module")
def readback() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readback", READBACK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NEEDS = {"sharegpt": "llamafactory", "parquet": "datasets", "webdataset": "webdataset"}


@pytest.mark.parametrize("form", FORMS)
def test_the_tools_themselves(form: Any, tmp_path: Path, readback: ModuleType) -> None:
    if form in NEEDS:
        pytest.importorskip(NEEDS[form], reason=f"{NEEDS[form]} is not installed")
    # More without an image than LLaMA-Factory takes the column's type from, and these first.
    talk = [sample(f"t{n}", turns=[Turn("user", "Hi."), Turn("assistant", "Hi.")]) for n in range(1200)]
    where = Turn("assistant", "At <region>.", (Region("point", (0.25, 0.5)),))
    seen = [sample(f"p{n}", "b", PICTURES[: 1 + n % 3], [Turn("user", "Where?"), where]) for n in range(30)]
    given = [*talk, *seen]
    config = ExportConfig(form, part_samples=500)
    export(tmp_path / "out", config, selection=choose(given), pool=Made(given))
    assert readback.compare(tmp_path / "out", {one.id: one for one in given}) == len(given)


def test_a_loader_that_leaves_images_over_is_told(tmp_path: Path, readback: ModuleType) -> None:
    given = [sample("1", pictures=PICTURES)]
    export(tmp_path / "out", ExportConfig("qwen"), selection=choose(given), pool=Made(given))
    data = tmp_path / "out" / "data.json"
    data.write_text(data.read_text().replace("<image>\\n<image>", "<image>", 1))
    with pytest.raises(ValueError, match="1 images remain unused"):
        readback.compare(tmp_path / "out", {"1": given[0]})
