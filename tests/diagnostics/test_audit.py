"""Pools whose truth is known: given away by size, by words, by a leaked frame, or by the scene alone."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embodied_midtrain.artifacts import PARTS, Artifact, Skips, StageError, open_stage, read_json
from embodied_midtrain.cli import main
from embodied_midtrain.diagnostics import leaks
from embodied_midtrain.diagnostics.audit import AuditConfig, audit
from embodied_midtrain.diagnostics.given import Given
from embodied_midtrain.episodes import Episode
from embodied_midtrain.features.extract import embed
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.features.store import write_shard
from embodied_midtrain.proximity.select import SelectConfig, select
from embodied_midtrain.samples import Picture, Pool, Sample, Turn
from embodied_midtrain.sources.opening import POOL_STAGE, open_pool
from embodied_midtrain.sources.table import write_table
from tests import tiny

SAID = ("go left", "go right", "lift it", "put it down")
TEMPLATE = "{instruction}\nyes"
SIDE, EPISODES, LENGTH, SAMPLES = 32, 12, 6, 80
CONFIG = AuditConfig(pictures=0, seeds=2, splits=1, leak_stride=1)


def scene(rng: np.random.Generator, ground: int) -> np.ndarray:
    """Blocks on a ground of a grey value: uint8 [SIDE, SIDE, 3]."""
    image = np.full((SIDE, SIDE, 3), ground, np.uint8)
    for _ in range(4):
        row, column = rng.integers(0, SIDE - 10, 2)
        image[row : row + rng.integers(4, 10), column : column + rng.integers(4, 10)] = rng.integers(0, 255, 3)
    return image


class Arm:
    """Robots over a dark ground."""

    name, spec = "arm", tiny.SPEC

    def __init__(self, ground: int = 30) -> None:
        rng = np.random.default_rng(1)
        self.episodes = [
            Episode(
                f"e{n:02d}",
                "task",
                SAID[n % 4],
                np.stack([scene(rng, ground) for _ in range(LENGTH)]),
                np.zeros((LENGTH, 3), np.float32),
            )
            for n in range(EPISODES)
        ]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.episodes)

    def fingerprint(self) -> str:
        return f"arm {self.episodes[0].frames[0].mean()}"


def encoded(pixels: np.ndarray, size: tuple[int, int] = (SIDE, SIDE), kind: str = "PNG") -> Picture:
    data = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(data, kind)
    return Picture(data.getvalue())


def make_pool(
    out: Path, *, ground: int = 200, size: tuple[int, int] = (SIDE, SIDE), asked: str = "", leak: Picture | None = None
) -> Pool:
    rng = np.random.default_rng(2)
    pictures = [encoded(scene(rng, ground), size) for _ in range(SAMPLES)]
    if leak is not None:
        pictures[17] = leak
    samples = [
        Sample("made", f"{n:03d}", (picture,), (Turn("user", asked or SAID[n % 4]), Turn("assistant", "yes")))
        for n, picture in enumerate(pictures)
    ]
    with open_stage(out, POOL_STAGE, {"made": str(out)}, {}) as run:
        write_table(run.file("samples.parquet"), samples)
        run.finish({"used": len(samples)})
    return open_pool(out, skips=Skips())


def stores(folder: Path) -> tuple[Artifact, Artifact]:
    """Features that tell the sides apart whatever the samples are: what a backbone made of them is not the point."""
    rng = np.random.default_rng(3)
    keys = {
        "pool": [("made", f"{n:03d}") for n in range(SAMPLES)],
        "target": [("task", f"e{n:02d}/{i:04d}") for n in range(EPISODES) for i in range(LENGTH)],
    }
    made = []
    for side, names in keys.items():
        rows = rng.normal(0, 1, (len(names), 2))
        # How near a sample is differs much within the pool, so that fits rank it alike.
        rows[:, 0] = 8 + 0.1 * rows[:, 0] if side == "target" else rows[:, 0] * 2
        rows[:, 1] = rows[:, 0] + 0.05 * rows[:, 1]
        config = {"pooling": "mean", "layer": -1, "prompt": TEMPLATE}
        with open_stage(folder / side, "embed", config, {"backbone": "b", side: "x"}) as run:
            write_shard(run.file("shard-000000.parquet"), names, rows.astype(np.float16))
            made.append(run.finish({"used": len(names)}))
    return made[0], made[1]


def selections(
    folder: Path, pool: Artifact, target: Artifact, *, follows_prompt: bool = False
) -> tuple[Artifact, Artifact]:
    first = select(folder / "selected", SelectConfig(k=20), pool=pool, target=target)
    config = SelectConfig(k=20, selector="random") if follows_prompt else SelectConfig(k=20, seed=1)
    return first, select(folder / "other-prompt", config, pool=pool, target=target)


def verdict(folder: Path, pool: Pool, *, follows_prompt: bool = False, config: AuditConfig = CONFIG) -> dict:
    near, far = stores(folder)
    first, other = selections(folder, near, far, follows_prompt=follows_prompt)
    given = Given(selection=first, others={"other-prompt": other}, samples=pool, robots=Arm())
    return read_json(audit(folder / "audit", config, pool=near, target=far, given=given).file("audit.json"))


def test_nothing_but_the_scene_differs(tmp_path: Path) -> None:
    facts = verdict(tmp_path, make_pool(tmp_path / "samples"))
    assert facts["verdict"] == "looks at the scene"
    probes = {name: row["accuracy"] for name, row in facts["probes"].items()}
    assert probes["full"] > 0.95 and max(probes["text"], probes["size"], probes["length"]) < 0.65
    assert facts["seeds"]["least"] > 0.9 and facts["rankings"]["other-prompt"]["overall"] > 0.9
    assert facts["leaks"]["samples"] == 0 and facts["leaks"]["pictures"] == SAMPLES


def test_the_size_gives_the_pool_away(tmp_path: Path) -> None:
    facts = verdict(tmp_path, make_pool(tmp_path / "samples", size=(48, 32)))
    assert facts["verdict"] == "partly a shortcut: image size" and facts["probes"]["size"]["accuracy"] == 1.0


def test_the_words_give_it_away_and_the_ranking_follows_them(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "samples", asked="Describe the image in detail.")
    facts = verdict(tmp_path, pool, follows_prompt=True)
    assert facts["verdict"] == "partly a shortcut: text" and facts["probes"]["text"]["accuracy"] > 0.97
    assert facts["rankings"]["other-prompt"]["overall"] < 0.5


def test_words_that_the_ranking_does_not_follow_are_no_shortcut(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "samples", asked="Describe the image in detail.")
    facts = verdict(tmp_path, pool)
    assert facts["verdict"] == "looks at the scene"
    assert any("stays" in finding["sentence"] for finding in facts["findings"] if finding["rule"] == "text")


@pytest.mark.parametrize(("size", "kind"), [((SIDE, SIDE), "PNG"), ((48, 48), "JPEG"), ((24, 24), "PNG")])
def test_a_leaked_frame_is_found(tmp_path: Path, size: tuple[int, int], kind: str) -> None:
    leak = encoded(Arm().episodes[5].frames[3], size, kind)
    facts = verdict(tmp_path, make_pool(tmp_path / "samples", leak=leak))
    assert facts["verdict"] == "leaks" and facts["leaks"]["samples"] == 1
    first = facts["leaks"]["first"][0]
    assert (first["source"], first["id"], first["task"], first["frame"]) == ("made", "017", "task", "e05/0003")
    assert first["bits"] <= 4
    assert pq.read_table(tmp_path / "audit" / "leaks.parquet")["id"].to_pylist() == ["017"]


@pytest.fixture(scope="module")
def backbone():
    return tiny.backbone("compact")


def looked_at(folder: Path, backbone, pool: Pool, layers: tuple[int, ...] = ()) -> dict:
    arm = Arm()
    config = EmbedConfig(frames_per_episode=LENGTH, prompt=TEMPLATE, precision="fp32", layers=layers)
    near = embed(folder / "pool", config, backbone=backbone, pool=pool)
    far = embed(folder / "target", config, backbone=backbone, target=arm)
    chosen = select(folder / "selected", SelectConfig(k=20), pool=near, target=far)
    given = Given(selection=chosen, samples=pool, robots=arm, backbone=backbone)
    settings = replace(CONFIG, pictures=60, frames=60)
    return read_json(audit(folder / "audit", settings, pool=near, target=far, given=given).file("audit.json"))


def test_altered_samples_show_what_the_estimator_follows(tmp_path: Path, backbone) -> None:
    seen = looked_at(tmp_path / "scene", backbone, make_pool(tmp_path / "a", ground=200))
    # Of several layers, one after the other in a row.
    asked = make_pool(tmp_path / "b", ground=30, asked="What is in this picture?")
    said = looked_at(tmp_path / "words", backbone, asked, layers=(0, -1))
    assert seen["verdict"] == "looks at the scene" and seen["probes"]["image"]["accuracy"] > 0.95
    assert said["verdict"] == "shortcut: text" and said["probes"]["image"]["accuracy"] < 0.75
    assert seen["altered"]["sized"] > 0.99 and seen["altered"]["rows"] == 60
    # All samples ask the same here: with one grey picture for all nothing is left to rank them by.
    assert said["altered"]["worded"] > 0.5 and said["altered"]["blank"] is None


def test_it_goes_on_after_a_kill_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(tmp_path / "samples")
    monkeypatch.setattr(leaks, "PART", 16)
    straight = verdict(tmp_path, pool)
    out = tmp_path / "killed"
    near, far = (Artifact.open(tmp_path / side, "embed") for side in ("pool", "target"))
    given = Given(
        selection=Artifact.open(tmp_path / "selected", "select"),
        others={"other-prompt": Artifact.open(tmp_path / "other-prompt", "select")},
        samples=pool,
        robots=Arm(),
    )
    calls = 0
    real = leaks.perceptual_hash

    def dies(picture):
        nonlocal calls
        calls += 1
        if calls > EPISODES * LENGTH + 40:
            raise KeyboardInterrupt
        return real(picture)

    monkeypatch.setattr(leaks, "perceptual_hash", dies)
    with pytest.raises(KeyboardInterrupt):
        audit(out, CONFIG, pool=near, target=far, given=given)
    assert len(list((out / PARTS).glob("pool-*.json"))) >= 1
    calls = -10_000
    audit(out, CONFIG, pool=near, target=far, given=given)
    assert calls < -10_000 + EPISODES * LENGTH + SAMPLES
    assert read_json(out / "audit.json") == straight
    a, b = (Artifact.open(path, "audit").manifest["files"] for path in (out, tmp_path / "audit"))
    assert a == b


def test_broken_pictures_are_counted_up_to_a_limit(tmp_path: Path) -> None:
    facts = verdict(tmp_path, make_pool(tmp_path / "samples", leak=Picture(b"no image")))
    assert facts["unreadable"] == {"broken image": 1}
    skipped = (tmp_path / "audit" / "skipped.jsonl").read_text()
    assert "made/017" in skipped and "broken image" in skipped


def test_inputs_that_do_not_belong_together(tmp_path: Path, backbone) -> None:
    pool = make_pool(tmp_path / "samples")
    near, far = stores(tmp_path)
    with pytest.raises(StageError, match="another backbone"):
        audit(tmp_path / "a", CONFIG, pool=near, target=far, given=Given(backbone=backbone))
    with open_stage(tmp_path / "few", POOL_STAGE, {}, {}) as run:
        write_table(run.file("samples.parquet"), list(pool)[:5])
        run.finish({"used": 5})
    given = Given(samples=open_pool(tmp_path / "few", skips=Skips()), robots=Arm())
    with pytest.raises(StageError, match="is not in few; give the pool that the features are of"):
        audit(tmp_path / "b", CONFIG, pool=near, target=far, given=given)
    arm = Arm()
    arm.episodes = arm.episodes[:4]
    with pytest.raises(StageError, match="arm lacks 8 episodes"):
        audit(tmp_path / "c", CONFIG, pool=near, target=far, given=Given(samples=pool, robots=arm))
    with pytest.raises(ValueError, match="20 rows or more"):
        audit(tmp_path / "d", AuditConfig(rows=3), pool=near, target=far, given=Given())


def test_the_command_with_features_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stores(tmp_path)
    call = ["audit", "--pool", str(tmp_path / "pool"), "--target", str(tmp_path / "target"), "--seeds", "2"]
    assert main([*call, "--splits", "1", "--out", str(tmp_path / "audit")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("verdict: cannot tell") and "not looked at: leaks" in said and "over seeds" in said
