import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from embodied_midtrain.artifacts import Artifact, ArtifactMismatch, StageError, open_stage
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.midtraining.midtrain import MidtrainConfig, midtrain
from embodied_midtrain.samples import Picture, question
from embodied_midtrain.sources.table import write_table
from tests.tiny import backbone

SMALL = {"steps": 6, "batch": 4, "micro_batch": 2, "lr": 1e-2, "precision": "fp32", "device": "cpu"}
FROZEN_VISION = {**SMALL, "train": ("connector", "language")}


def picture(seed: int) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(data=file.getvalue())


def samples():
    """Twelve samples of two sources; each answer is as long as its number says."""
    return [
        question("books" if n < 4 else "charts", f"{n:02d}", picture(n), "What is it?", "a" * (3 + n))
        for n in range(12)
    ]


@pytest.fixture
def pool(tmp_path):
    return make_pool(tmp_path / "pool", samples())


def make_pool(folder, rows):
    with open_stage(folder, "pool build", {}, {}) as run:
        write_table(run.file("samples.parquet"), rows)
        run.finish({"used": len(rows)})
    return folder


def select(folder, rows) -> Artifact:
    with open_stage(folder, "select", {}, {}) as run:
        columns = {"source": [r.source for r in rows], "id": [r.id for r in rows]}
        pq.write_table(pa.table({**columns, "rank": list(range(len(rows)))}), run.file("selection.parquet"))
        return run.finish()


@pytest.fixture
def selection(tmp_path):
    return select(tmp_path / "selection", samples())


def losses(artifact):
    return json.loads(artifact.file("curve.json").read_text())["loss"]


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_learns_and_the_checkpoint_opens(tmp_path, pool, selection, kind, method):
    settings = {**SMALL, "steps": 15, "method": method, "lora_rank": 4}
    artifact = midtrain(
        tmp_path / "out", MidtrainConfig(**settings), backbone=backbone(kind), pool=pool, selection=selection
    )
    curve = losses(artifact)
    # LoRA cannot move the output embedding, which in a random model is most of what there is to learn.
    wanted = 0.9 if method == "full" else 0.98
    assert len(curve) == 15 and np.mean(curve[-4:]) < wanted * np.mean(curve[:4])
    trained, fresh = load_backbone(artifact.file("model")).base.state_dict(), backbone(kind).base.state_dict()
    assert trained.keys() == fresh.keys()
    assert any(not torch.equal(trained[name], fresh[name]) for name in fresh)
    assert not list((tmp_path / "out" / "parts").glob("checkpoints"))


def test_the_loss_is_on_answers_only_and_by_token(tmp_path, pool, selection):
    settings = MidtrainConfig(**{**SMALL, "steps": 1, "lr": 1e-9})
    artifact = midtrain(tmp_path / "out", settings, backbone=backbone("compact"), pool=pool, selection=selection)
    model = backbone("compact")
    rows = [model.render(sample) for sample in samples()]
    order = json.loads((tmp_path / "out" / "parts" / "rows-00000.json").read_text())["keys"]
    by_key = {sample.key: row for sample, row in zip(samples(), rows, strict=True)}
    chosen = [by_key[tuple(key)] for key in order][:4]
    with torch.no_grad():
        logits, targets = model.answer_logits(model.collate(chosen))
    assert len(targets) == sum(sum(row.learnt[1:]) for row in chosen)
    whole = torch.nn.functional.cross_entropy(logits, targets).item()
    assert losses(artifact)[0] == pytest.approx(whole, rel=1e-4)


def test_frozen_vision_stays_and_its_kept_output_trains_the_same(tmp_path, pool, selection, monkeypatch):
    config = MidtrainConfig(**FROZEN_VISION)
    kept = midtrain(tmp_path / "kept", config, backbone=backbone("compact"), pool=pool, selection=selection)
    before, after = backbone("compact").tower, load_backbone(kept.file("model")).tower
    assert all(
        torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )
    assert not (tmp_path / "kept" / "parts" / "rows").exists()

    monkeypatch.setattr(type(backbone("compact")), "caches_vision", property(lambda _: False))
    live = midtrain(tmp_path / "live", config, backbone=backbone("compact"), pool=pool, selection=selection)
    # Kept features are in half precision.
    assert losses(live) == pytest.approx(losses(kept), rel=2e-3)


def test_only_the_chosen_parts_learn(tmp_path, pool, selection):
    config = MidtrainConfig(**{**SMALL, "train": ("connector",)})
    artifact = midtrain(tmp_path / "out", config, backbone=backbone("smolvlm"), pool=pool, selection=selection)
    trained, fresh = load_backbone(artifact.file("model")), backbone("smolvlm")
    for name, same in (("vision", True), ("language", True), ("connector", False)):
        pairs = zip(trained.groups()[name], fresh.groups()[name], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) is same


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
def test_killed_and_resumed_ends_the_same(tmp_path, pool, selection, kind, monkeypatch):
    config = MidtrainConfig(**{**FROZEN_VISION, "save_seconds": 0.0})

    def go(name):
        return midtrain(tmp_path / name, config, backbone=backbone(kind), pool=pool, selection=selection)

    whole = go("whole")

    class Killed(BaseException):
        pass

    from embodied_midtrain.training import checkpoint

    save = checkpoint.save

    def dying(folder, step, *rest):
        save(folder, step, *rest)
        if step == 3:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", dying)
    with pytest.raises(Killed):
        go("killed")
    monkeypatch.undo()
    resumed = go("killed")
    assert resumed.manifest["files"] == whole.manifest["files"]
    assert resumed.counts == whole.counts


def test_a_budget_above_the_selection_repeats_and_says_so(tmp_path, pool, selection):
    config = MidtrainConfig(**{**FROZEN_VISION, "steps": 8, "batch": 4, "keep": 10})
    artifact = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=pool, selection=selection)
    counts = artifact.counts
    assert (counts["selected"], counts["usable"], counts["samples_seen"]) == (10, 10, 32)
    assert counts["repeated"] == 22
    books, charts = counts["composition"]["books"], counts["composition"]["charts"]
    assert books["target"] == 0.4 and charts["target"] == 0.6
    assert books["drawn"] + charts["drawn"] == 32
    assert 12 <= books["drawn"] <= 16 and books["realised"] == round(books["drawn"] / 32, 6)


def test_a_budget_below_the_selection_takes_a_part_of_it_without_repeats(tmp_path, pool, selection):
    config = MidtrainConfig(**{**FROZEN_VISION, "steps": 2, "batch": 3, "micro_batch": 3})
    artifact = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=pool, selection=selection)
    assert (artifact.counts["usable"], artifact.counts["repeated"], artifact.counts["samples_seen"]) == (6, 0, 6)


def test_bad_and_long_samples_are_skipped_counted_and_replaced(tmp_path):
    rows = samples()
    rows[0] = question("books", "00", Picture(data=b""), "What is it?", "a book")
    rows[1] = question("books", "01", Picture(data=picture(1).read()[:60]), "What is it?", "a book")
    rows[2] = question("books", "02", picture(2), "What is it?", "b" * 400)
    folder, selection = make_pool(tmp_path / "pool", rows), select(tmp_path / "selection", rows)
    config = MidtrainConfig(**{**FROZEN_VISION, "steps": 3, "batch": 3, "micro_batch": 3, "max_tokens": 200})
    artifact = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=folder, selection=selection)
    assert artifact.counts["usable"] == 9 and artifact.counts["samples_seen"] == 9
    assert artifact.counts["skipped"] == {"broken image": 1, "empty image": 1, "too long": 1}
    listed = [json.loads(line) for line in artifact.file("skipped.jsonl").read_text().splitlines()]
    assert {row["where"] for row in listed} == {"books/00", "books/01", "books/02"}


def test_nothing_usable_is_an_error(tmp_path):
    rows = [question("books", "0", Picture(data=b""), "What?", "a book")]
    with pytest.raises(StageError, match="no sample of the selection can be used"):
        midtrain(
            tmp_path / "out",
            MidtrainConfig(**SMALL),
            backbone=backbone("compact"),
            pool=make_pool(tmp_path / "pool", rows),
            selection=select(tmp_path / "selection", rows),
        )


def test_a_selection_of_another_pool_is_an_error(tmp_path, pool):
    other = select(tmp_path / "other", [question("books", "99", picture(0), "What?", "a book")])
    with pytest.raises(StageError, match="give the pool that the selection was made from"):
        midtrain(tmp_path / "out", MidtrainConfig(**SMALL), backbone=backbone("compact"), pool=pool, selection=other)


def test_a_nan_stops_and_names_the_samples(tmp_path, pool, selection):
    model = backbone("compact")
    with torch.no_grad():
        model.connector.outward.weight.fill_(float("nan"))
    with pytest.raises(StageError, match=r"loss of step 0 is nan.*samples (books|charts)/\d\d"):
        midtrain(tmp_path / "out", MidtrainConfig(**SMALL), backbone=model, pool=pool, selection=selection)
    assert not (tmp_path / "out" / "model").exists()


def test_a_finished_one_is_left_alone_and_other_settings_are_refused(tmp_path, pool, selection):
    config = MidtrainConfig(**{**SMALL, "steps": 1})
    first = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=pool, selection=selection)
    again = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=pool, selection=selection)
    assert again.fingerprint == first.fingerprint
    other = MidtrainConfig(**{**SMALL, "steps": 2})
    with pytest.raises(ArtifactMismatch, match="config steps: 1 there, 2 now"):
        midtrain(tmp_path / "out", other, backbone=backbone("compact"), pool=pool, selection=selection)


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="no part of the backbone"):
        MidtrainConfig(train=()).check()
    with pytest.raises(ValueError, match="keep is 0"):
        MidtrainConfig(keep=0).check()
