import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from embodied_midtrain.artifacts import ArtifactMismatch, StageError
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.midtraining.midtrain import MidtrainConfig, midtrain
from embodied_midtrain.samples import Picture, question
from tests.midtraining.small_pool import make_pool, picture, samples, select
from tests.tiny import backbone

SMALL = {"steps": 6, "batch": 4, "micro_batch": 2, "lr": 1e-2, "precision": "fp32", "device": "cpu"}
FROZEN_VISION = {**SMALL, "train": ("connector", "language")}


@pytest.fixture
def pool(tmp_path):
    return make_pool(tmp_path / "pool", samples())


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
    with pytest.raises(StageError, match=r"no sample of the selection can be used \(skipped: 1 empty image\)"):
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


def test_a_half_finished_one_of_another_backbone_is_refused(tmp_path, pool, selection):
    broken = backbone("compact")
    with torch.no_grad():
        broken.connector.outward.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="is nan"):
        midtrain(tmp_path / "out", MidtrainConfig(**SMALL), backbone=broken, pool=pool, selection=selection)
    with pytest.raises(ArtifactMismatch, match="inputs backbone"):
        midtrain(
            tmp_path / "out", MidtrainConfig(**SMALL), backbone=backbone("compact"), pool=pool, selection=selection
        )


def test_records_of_a_whole_pool_that_cannot_be_read_are_counted(tmp_path):
    caption = json.dumps({"caption": "a red mug", "id": "1"})
    (tmp_path / "pool.jsonl").write_text(f"{caption}\n{{broken\n")
    config = MidtrainConfig(**{**SMALL, "steps": 1})
    artifact = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=tmp_path / "pool.jsonl")
    assert artifact.counts["usable"] == 1 and artifact.counts["skipped"] == {"broken JSON": 1}


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="no part of the backbone"):
        MidtrainConfig(train=()).check()
    with pytest.raises(ValueError, match="keep is 0"):
        MidtrainConfig(keep=0).check()


def step_gradient(kind, settings, pool, tmp_path, monkeypatch):
    """The gradient of the first step, by name."""
    from embodied_midtrain.training import loop

    found = {}
    clip = loop.nn.utils.clip_grad_norm_

    def caught(weights, most):
        found.update({n: p.grad.clone() for n, p in enumerate(weights) if p.grad is not None})
        return clip(weights, most)

    monkeypatch.setattr(loop.nn.utils, "clip_grad_norm_", caught)
    config = MidtrainConfig(**{**SMALL, "steps": 1, "batch": 12, "micro_batch": 5, **settings})
    artifact = midtrain(tmp_path / str(settings), config, backbone=backbone(kind), pool=pool)
    monkeypatch.undo()
    return found, losses(artifact)[0]


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
def test_packed_and_padded_steps_have_the_same_gradient(tmp_path, pool, kind, monkeypatch):
    padded, loss = step_gradient(kind, {"packing": "off"}, pool, tmp_path, monkeypatch)
    settings = {"packing": "on", "max_tokens": 150}
    packed, same = step_gradient(kind, settings, pool, tmp_path, monkeypatch)
    again = step_gradient(kind, {"packing": "off", "gradient_checkpointing": True}, pool, tmp_path, monkeypatch)
    assert same == pytest.approx(loss, rel=1e-5) and again[1] == pytest.approx(loss, rel=1e-5)
    assert padded.keys() == packed.keys() == again[0].keys()
    for name, grad in padded.items():
        torch.testing.assert_close(packed[name], grad, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(again[0][name], grad, rtol=1e-3, atol=1e-5)


def test_packing_on_is_as_many_samples_in_fewer_passes(tmp_path, pool, monkeypatch):
    from embodied_midtrain.backbones.backbone import Backbone

    seen = []
    loss = Backbone.loss
    monkeypatch.setattr(Backbone, "loss", lambda self, batch: seen.append(batch) or loss(self, batch))
    config = MidtrainConfig(**{**SMALL, "steps": 2, "batch": 6, "packing": "on", "window": 2048})
    midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=pool)
    assert [len(batch["input_ids"]) for batch in seen] == [1, 1]
    assert all("attention_mask" not in batch and (batch["position_ids"] == 0).sum() == 6 for batch in seen)


def test_weights_are_realised_exactly_and_repeats_counted(tmp_path, pool):
    settings = {**FROZEN_VISION, "steps": 5, "batch": 4, "weights": {"books": 3.0, "charts": 1.0}}
    artifact = midtrain(tmp_path / "out", MidtrainConfig(**settings), backbone=backbone("compact"), pool=pool)
    books, charts = artifact.counts["composition"]["books"], artifact.counts["composition"]["charts"]
    assert (books["target"], books["realised"], books["drawn"], books["usable"]) == (0.75, 0.75, 15, 4)
    assert (charts["target"], charts["drawn"], charts["usable"], charts["repeated"]) == (0.25, 5, 5, 0)
    assert books["repeated"] == 11 == artifact.counts["repeated"]


def test_a_source_without_weight_is_not_drawn(tmp_path, pool):
    settings = {**SMALL, "steps": 2, "weights": {"charts": 1.0}}
    artifact = midtrain(tmp_path / "out", MidtrainConfig(**settings), backbone=backbone("compact"), pool=pool)
    assert artifact.counts["composition"]["books"]["drawn"] == 0
    assert artifact.counts["composition"]["charts"]["drawn"] == 8


def test_skipped_samples_of_a_weighted_source_are_replaced_and_none_left_is_an_error(tmp_path):
    rows = samples()
    for n in (0, 1, 2):
        rows[n] = question("books", f"0{n}", Picture(data=b""), "What is it?", "a book")
    folder = make_pool(tmp_path / "pool", rows)
    settings = {**SMALL, "steps": 1, "weights": {"books": 1.0, "charts": 3.0}}
    artifact = midtrain(tmp_path / "a", MidtrainConfig(**settings), backbone=backbone("compact"), pool=folder)
    assert artifact.counts["composition"]["books"]["drawn"] == 1
    rows[3] = question("books", "03", Picture(data=b""), "What is it?", "a book")
    folder = make_pool(tmp_path / "other", rows)
    with pytest.raises(StageError, match="no sample of books can be used"):
        midtrain(tmp_path / "b", MidtrainConfig(**settings), backbone=backbone("compact"), pool=folder)


def test_repeats_that_are_forbidden_are_refused_before_any_work(tmp_path, pool):
    model = backbone("compact")
    more = MidtrainConfig(**{**SMALL, "repeats": False})
    with pytest.raises(StageError, match=r"24 draws were asked for.*the selection has 12 samples"):
        midtrain(tmp_path / "a", more, backbone=model, pool=pool)
    weights = MidtrainConfig(**{**SMALL, "steps": 2, "repeats": False, "weights": {"books": 3.0, "charts": 1.0}})
    with pytest.raises(StageError, match=r"6 draws of books were asked for.*has 4 samples.*or the weight"):
        midtrain(tmp_path / "b", weights, backbone=model, pool=pool)
    assert not (tmp_path / "b" / "parts").exists()


def test_only_the_last_vision_layers_learn(tmp_path, pool):
    config = MidtrainConfig(**{**SMALL, "steps": 2, "vision_last": 0.5})
    artifact = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=pool)
    trained, fresh = load_backbone(artifact.file("model")).tower, backbone("compact").tower
    same = {n: torch.equal(p, q) for (n, p), q in zip(trained.named_parameters(), fresh.parameters(), strict=True)}
    assert not any(ok for name, ok in same.items() if name.startswith("stages.1.0.depthwise.weight"))
    assert all(ok for name, ok in same.items() if name.startswith(("stem", "stages.0")))


def test_strength_is_the_way_from_the_base(tmp_path, pool):
    def weights(name, **more):
        config = MidtrainConfig(**{**SMALL, **more})
        artifact = midtrain(tmp_path / name, config, backbone=backbone("compact"), pool=pool)
        return load_backbone(artifact.file("model")).base.state_dict()

    base = backbone("compact").base.state_dict()
    for method in ("full", "lora"):
        whole = weights(f"{method}-1", method=method)
        half = weights(f"{method}-half", method=method, strength=0.5)
        for name, start in base.items():
            if start.is_floating_point():
                torch.testing.assert_close(half[name], start + 0.5 * (whole[name] - start), rtol=1e-4, atol=1e-6)


def test_lora_takes_only_its_targets(tmp_path, pool):
    config = MidtrainConfig(**{**SMALL, "method": "lora", "lora_targets": ("q_proj",)})
    artifact = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=pool)
    trained, fresh = load_backbone(artifact.file("model")).base.state_dict(), backbone("compact").base.state_dict()
    changed = {name for name in fresh if not torch.equal(trained[name], fresh[name])}
    assert changed and all("q_proj" in name for name in changed)
    with pytest.raises(ValueError, match="no layer is called nothing"):
        other = replace(config, lora_targets=("nothing",))
        midtrain(tmp_path / "other", other, backbone=backbone("compact"), pool=pool)


def test_the_average_is_the_result(tmp_path, pool):
    settings = {**SMALL, "steps": 4}
    plain = midtrain(tmp_path / "plain", MidtrainConfig(**settings), backbone=backbone("compact"), pool=pool)
    config = MidtrainConfig(**settings, ema=0.9)
    averaged = midtrain(tmp_path / "ema", config, backbone=backbone("compact"), pool=pool)
    assert losses(plain) == losses(averaged)
    name = "model.language_model.norm.weight"
    start, last, mean = (
        model.base.state_dict()[name]
        for model in (backbone("compact"), load_backbone(plain.file("model")), load_backbone(averaged.file("model")))
    )
    assert 0 < (mean - start).norm() < (last - start).norm()


def test_the_journal_says_how_fast_it_is(tmp_path, pool):
    artifact = midtrain(tmp_path / "out", MidtrainConfig(**SMALL), backbone=backbone("compact"), pool=pool)
    lines = [json.loads(line) for line in (artifact.path / "logs" / "train.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert all(0 < line["flops_use"] < 1 and 0 <= line["idle"] < 1 and line["tokens_per_second"] > 0 for line in lines)


def test_more_settings_that_cannot_be_meant_are_refused():
    for settings, words in (
        ({"vision_last": 1.5}, "share from 0 to 1"),
        ({"train": ("vision",), "vision_last": 0.0}, "nothing learns"),
        ({"strength": 0.0}, "above 0"),
        ({"window": 100}, "longest sample"),
        ({"ema": 1.0}, "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=words):
            MidtrainConfig(**settings).check()


def test_what_does_not_fit_is_not_started(tmp_path, pool, monkeypatch):
    from embodied_midtrain.midtraining import room

    monkeypatch.setattr(room, "there_is", lambda _: 1000)
    with pytest.raises(StageError, match=r"(?s)would be needed, so this is not started.*activations.*micro_batch"):
        midtrain(tmp_path / "out", MidtrainConfig(**SMALL), backbone=backbone("compact"), pool=pool)
    monkeypatch.undo()
    done = midtrain(tmp_path / "out", MidtrainConfig(**SMALL), backbone=backbone("compact"), pool=pool)
    told = json.loads((done.path / "logs" / "memory.json").read_text())
    assert 0 < told["weights"] < told["total"]


def test_out_of_memory_says_what_was_estimated(tmp_path, pool, monkeypatch):
    from embodied_midtrain.backbones.backbone import Backbone

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Backbone, "loss", full)
    with pytest.raises(StageError, match=r"(?s)out of memory: CUDA.*The estimate was.*micro_batch.*goes on from"):
        midtrain(tmp_path / "out", MidtrainConfig(**SMALL), backbone=backbone("compact"), pool=pool)
