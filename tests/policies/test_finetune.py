import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from embodied_midtrain.artifacts import ArtifactMismatch, StageError
from embodied_midtrain.episodes import ActionSpec, Episode
from embodied_midtrain.policies import frames, frozen
from embodied_midtrain.policies.encoder import encode, see
from embodied_midtrain.policies.finetune import FinetuneConfig, finetune
from embodied_midtrain.policies.frames import Wanted, collect
from embodied_midtrain.policies.opening import load_actor, open_policy
from embodied_midtrain.policies.preprocess import Preprocessor, random_crop
from embodied_midtrain.policies.query import QueryNet
from embodied_midtrain.policies.reader import Sight
from tests.tiny import SPEC, Dots, backbone, folder

SMALL = {
    "chunk": 3,
    "executed": 2,
    "steps": 12,
    "batch": 8,
    "micro_batch": 4,
    "warmup_steps": 2,
    "lr": 1e-3,
    "image": 32,
    "widths": (32, 32, 16),
    "precision": "fp32",
    "device": "cpu",
}
FROZEN = {**SMALL, "mode": "frozen", "layer": 2, "reader_width": 16, "reader_queries": 2, "micro_batch": 8}


def run(out, kind="compact", robots=None, **settings):
    config = FinetuneConfig(**{**(FROZEN if settings.get("mode") == "frozen" else SMALL), **settings})
    return finetune(out, config, backbone=backbone(kind), demos=robots or Dots())


@pytest.mark.parametrize(("kind", "mode"), [(k, m) for k in ("compact", "smolvlm") for m in ("full", "lora", "frozen")])
def test_every_mode_trains_saves_and_loads(tmp_path, kind, mode):
    rank = {"lora_rank": 4, "train": ("connector", "language")} if mode == "lora" else {}
    artifact = run(tmp_path / "out", kind, mode=mode, **rank)
    assert artifact.counts["frames"] == 48 and artifact.counts["samples_seen"] == 96
    losses = json.loads(artifact.file("curve.json").read_text())["loss"]
    assert len(losses) == 12 and np.mean(losses[-4:]) < np.mean(losses[:4])
    assert not (tmp_path / "out" / "parts" / "frames").exists()

    actor = load_actor(tmp_path / "out", SPEC)
    seen = Dots().episodes[0].frames[:3]
    actions = actor.act(seen, ["go left", "go right", "move left"])
    assert (actor.chunk, actor.executed, actor.size, actor.spec) == (3, 2, 32, SPEC)
    assert actions.shape == (3, 3, 3) and actions.dtype == np.float32
    assert (np.abs(actions) <= 1.0).all() and set(np.unique(actions[..., 2])) <= {-1.0, 1.0}
    again = load_actor(tmp_path / "out" / "policy").act(seen, ["go left", "go right", "move left"])
    assert np.array_equal(actions, again)
    # One by one and together are the same: padding does not leak.
    alone = np.concatenate([actor.act(seen[n : n + 1], [text]) for n, text in enumerate(["go left", "go right"])])
    assert np.allclose(alone, actions[:2], atol=1e-4)


def test_a_saved_policy_acts_as_the_trained_one(tmp_path):
    model = backbone("compact")
    artifact = finetune(tmp_path / "out", FinetuneConfig(**SMALL), backbone=model, demos=Dots())
    assert artifact.path == tmp_path / "out"
    saved = open_policy(tmp_path / "out")
    trained, reloaded = model.base.state_dict(), saved.backbone.base.state_dict()
    assert all(torch.equal(trained[name], reloaded[name]) for name in trained)
    fresh = backbone("compact").base.state_dict()
    assert any(not torch.equal(fresh[name], trained[name]) for name in trained)


def test_rollouts_get_the_camera_of_the_demonstrations(tmp_path):
    run(tmp_path / "out", mode="frozen", robots=Dots(side=48))
    actor = load_actor(tmp_path / "out")
    assert actor.size == 48 and actor.preprocessor.image == 32


def test_identity_tells_policies_apart(tmp_path):
    run(tmp_path / "a", mode="frozen")
    run(tmp_path / "b", mode="frozen", seed=1)
    one, other = (load_actor(tmp_path / name).identity for name in "ab")
    assert one == load_actor(tmp_path / "a" / "policy").identity != other


def test_the_query_starts_at_zero_and_learns(tmp_path):
    run(tmp_path / "out")
    assert load_actor(tmp_path / "out").net.query.abs().max() > 0


def test_frozen_leaves_the_backbone_alone_and_training_sees_what_rollouts_see(tmp_path):
    run(tmp_path / "out", mode="frozen")
    actor = load_actor(tmp_path / "out")
    fresh = backbone("compact").base.state_dict()
    assert all(torch.equal(fresh[name], value) for name, value in actor.backbone.base.state_dict().items())

    config = FinetuneConfig(**FROZEN)
    make = frozen.maker(actor.backbone, actor.preprocessor, config, tmp_path / "cache")
    episode = Dots().episodes[0]
    cached = make(episode.frames, [episode.instruction] * 8)
    again = make(episode.frames, [episode.instruction] * 8)
    assert cached.dtype == np.float16 and np.array_equal(cached, again)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1
    rows = actor.preprocessor.render(actor.backbone, episode.frames[:2], [episode.instruction] * 2)
    live, sight = encode(actor.backbone, rows, layer=config.layer, text_tokens=config.text_tokens)
    assert np.allclose(live.numpy(), cached[:2], atol=2e-3)
    assert sight == actor.net.reader.sight == Sight(4 + 4, 32, 4)


def test_encoding_takes_the_image_tokens_and_the_last_text_tokens_of_the_layer():
    model = backbone("compact")
    rows = Preprocessor(32).render(model, Dots().episodes[0].frames[:2], ["go left", "turn around slowly"])
    flat, sight = encode(model, rows, layer=1, text_tokens=3, cells=True)
    found, cells = sight.split(flat)
    batch = model.collate(
        [replace(r, pixels={"vision": s.float()}) for r, s in zip(rows, see(model, rows), strict=True)]
    )
    with torch.inference_mode():
        wanted = model.states(batch, layer=1)
    assert found.shape == (2, 4 + 3, 32)
    for n, row in enumerate(rows):
        images = [i for i, token in enumerate(row.ids) if token == model.image_token_id]
        places = [*images, *range(len(row) - 3, len(row))]
        assert torch.allclose(found[n].float(), wanted[n, places], atol=2e-3)
    assert torch.equal(cells, see(model, rows)[:, 0])


def test_a_reader_of_cells_too(tmp_path):
    run(tmp_path / "out", mode="frozen", cells=True)
    actor = load_actor(tmp_path / "out")
    assert actor.net.reader.sight.cells > 0
    assert actor.act(Dots().episodes[0].frames[:2], ["go left", "go right"]).shape == (2, 3, 3)
    with pytest.raises(StageError, match="does not give out its vision tower's cells"):
        run(tmp_path / "other", "smolvlm", mode="frozen", cells=True)


def test_layers_beyond_the_wanted_one_do_not_run():
    model = backbone("compact")
    ran = []
    for number, layer in enumerate(model.language.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    rows = Preprocessor(32).render(model, Dots().episodes[0].frames[:1], ["go left"])
    encode(model, rows, layer=2, text_tokens=1)
    assert ran == [0, 1] and len(model.language.layers) == 3
    with pytest.raises(ValueError, match="layers 0 to 3"):
        encode(model, rows, layer=4, text_tokens=1)


def test_text_tokens_beyond_the_prompt_are_an_error():
    model = backbone("compact")
    rows = Preprocessor(32, "{instruction}").render(model, Dots().episodes[0].frames[:1], ["go"])
    with pytest.raises(StageError, match="text_tokens is 500"):
        encode(model, rows, layer=1, text_tokens=500)


@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_killed_and_resumed_ends_the_same(tmp_path, mode, monkeypatch):
    whole = run(tmp_path / "whole", mode=mode, save_seconds=0.0)

    class Killed(BaseException):
        pass

    from embodied_midtrain.training import checkpoint

    save = checkpoint.save

    def dying(folder, step, *rest):
        save(folder, step, *rest)
        if step == 5:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", dying)
    with pytest.raises(Killed):
        run(tmp_path / "killed", mode=mode, save_seconds=0.0)
    monkeypatch.undo()
    assert run(tmp_path / "killed", mode=mode, save_seconds=0.0).manifest["files"] == whole.manifest["files"]


def test_killed_while_frames_are_made_it_goes_on_from_the_parts_that_are_there(tmp_path, monkeypatch):
    robots = Dots(20)
    whole = run(tmp_path / "whole", mode="frozen", robots=robots)
    make_part, made = frames._make_part, []

    def dying(stage, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        made.append(number)
        return make_part(stage, number, *rest)

    monkeypatch.setattr(frames, "_make_part", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", mode="frozen", robots=robots)
    monkeypatch.setattr(frames, "_make_part", lambda s, n, *rest: (made.append(n), make_part(s, n, *rest))[1])
    assert run(tmp_path / "killed", mode="frozen", robots=robots).manifest["files"] == whole.manifest["files"]
    assert made == [0, 1, 2]


def test_same_seed_same_policy_and_a_finished_one_is_left_alone(tmp_path):
    first = run(tmp_path / "a", mode="frozen")
    second = run(tmp_path / "b", mode="frozen")
    assert first.manifest["files"] == second.manifest["files"]
    before = (tmp_path / "a" / "manifest.json").stat().st_mtime_ns
    assert run(tmp_path / "a", mode="frozen").fingerprint == first.fingerprint
    assert (tmp_path / "a" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ArtifactMismatch, match="chunk"):
        run(tmp_path / "a", mode="frozen", chunk=4)


def test_paraphrases_change_from_epoch_to_epoch_but_not_within_an_episode(tmp_path):
    from embodied_midtrain.policies.queried import Batches

    robots = Dots(8)
    config = FinetuneConfig(**{**SMALL, "steps": 40})
    run(tmp_path / "out", robots=robots)
    actor = load_actor(tmp_path / "out")
    from embodied_midtrain.artifacts import open_stage

    with open_stage(tmp_path / "frames", "x", {}, {}) as stage:
        store = collect(stage, robots, Wanted(3, 1), lambda frames, _: frames, "frames")
        batches = Batches(actor, store, config)
        assert store.paraphrases()["left-v0"] == ["go left", "move left"]
        by_epoch = [{batches._instruction(1, epoch) for _ in range(3)} for epoch in range(12)]
        assert all(len(texts) == 1 for texts in by_epoch)
        assert set().union(*by_epoch) == {"go left", "move left"}


def test_bad_episodes_are_skipped_and_counted(tmp_path):
    robots = Dots()
    nan = robots.episodes[1].actions.copy()
    nan[3, 0] = np.nan
    robots.episodes[1] = replace(robots.episodes[1], actions=nan)
    robots.episodes[2] = replace(robots.episodes[2], actions=robots.episodes[2].actions[:5])
    artifact = run(tmp_path / "out", robots=robots, mode="frozen")
    assert artifact.counts["skipped"] == {"nan action": 1, "uneven": 1}
    assert artifact.counts["episodes"] == 4


def test_actions_of_another_width_are_no_part_of_it(tmp_path):
    robots = Dots()
    narrow = [replace(episode, actions=episode.actions[:, :2]) for episode in robots.episodes]
    robots.episodes[0] = narrow[0]
    artifact = run(tmp_path / "out", robots=robots, mode="frozen")
    assert artifact.counts["skipped"] == {"bad actions": 1} and artifact.counts["episodes"] == 5
    robots.episodes = narrow
    with pytest.raises(StageError, match="no usable episode"):
        run(tmp_path / "none", robots=robots, mode="frozen")


def test_out_of_memory_says_what_to_change(tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(QueryNet, "loss", full)
    with pytest.raises(StageError, match=r"(?s)out of memory: CUDA.*Lower micro_batch.*goes on from"):
        run(tmp_path / "out")


def test_nothing_usable_is_an_error_that_says_so(tmp_path):
    robots = Dots(1)
    robots.episodes = [Episode("e", "left-v0", " ", robots.episodes[0].frames, robots.episodes[0].actions)]
    with pytest.raises(StageError, match="no usable episode"):
        run(tmp_path / "a", robots=robots, mode="frozen")
    with pytest.raises(StageError, match="no usable episode"):
        run(tmp_path / "b", mode="frozen", tasks=("fly-v0",))
    with pytest.raises(StageError, match="no usable episode of fly-v0"):
        run(tmp_path / "c", mode="frozen", tasks=("fly-v0", "left-v0"))


def test_a_nan_in_the_backbone_stops(tmp_path):
    model = backbone("compact")
    with torch.no_grad():
        model.connector.outward.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="loss of step 0 is nan"):
        finetune(tmp_path / "full", FinetuneConfig(**SMALL), backbone=model, demos=Dots())
    with pytest.raises(StageError, match="no usable episode"):
        finetune(tmp_path / "frozen", FinetuneConfig(**FROZEN), backbone=model, demos=Dots())


def test_another_spec_is_refused_by_name(tmp_path):
    run(tmp_path / "out", mode="frozen")
    other = replace(SPEC, gripper_closed=-1, rate=20.0)
    with pytest.raises(StageError, match=r"(?s)gripper_closed.*rate"):
        load_actor(tmp_path / "out", other)


def test_another_backbone_or_a_damaged_head_is_refused(tmp_path):
    run(tmp_path / "out", mode="frozen")
    policy = tmp_path / "out" / "policy"
    shutil.copytree(policy, tmp_path / "swapped")
    run(tmp_path / "other", lr=1e-2)
    weights = tmp_path / "other" / "policy" / "backbone" / "model.safetensors"
    shutil.copy(weights, tmp_path / "swapped" / "backbone" / "model.safetensors")
    with pytest.raises(StageError, match="not the backbone that this policy was trained with"):
        load_actor(tmp_path / "swapped")
    (policy / "head.safetensors").write_bytes(b"")
    with pytest.raises(StageError, match="damaged"):
        load_actor(policy)
    with pytest.raises(StageError, match="is no policy"):
        load_actor(folder("compact"))


def test_settings_that_cannot_be_meant_are_refused():
    def config(**settings):
        FinetuneConfig(**{**SMALL, **settings}).check()

    with pytest.raises(ValueError, match="from 1 to chunk"):
        config(executed=4)
    with pytest.raises(ValueError, match="cannot crop"):
        config(mode="frozen", crop=0.9)
    with pytest.raises(ValueError, match="no part of the backbone"):
        config(train=())
    with pytest.raises(ValueError, match="instruction"):
        config(template="do it")
    with pytest.raises(TypeError, match="chunk"):
        FinetuneConfig(executed=1)


def test_random_crops_keep_the_size_and_move():
    frame = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    one, two = (random_crop(frame, 0.9, np.random.default_rng(seed)) for seed in (1, 2))
    assert one.shape == frame.shape and one.dtype == np.uint8
    assert (one != two).any()
    assert np.array_equal(random_crop(frame, 1.0, np.random.default_rng(1)), frame)


def test_actions_of_unknown_meaning_train_no_policy(tmp_path):
    robots = Dots()
    robots.spec = ActionSpec.unknown(SPEC.width, 10.0)
    with pytest.raises(StageError, match=r"action_spec\.json"):
        run(tmp_path / "out", robots=robots)


def test_a_missing_or_foreign_normalisation_is_named(tmp_path):
    run(tmp_path / "out", mode="frozen")
    settings = tmp_path / "out" / "policy" / "policy.json"
    whole = json.loads(settings.read_text())
    for change, words in (
        ({"normaliser": None}, "normaliser"),
        ({"normaliser": {**whole["normaliser"], "middle": [0.0], "half": [1.0]}}, "statistics are of 1 dimensions"),
        ({"normaliser": {**whole["normaliser"], "half": [9.0, 1.0, 1.0]}}, "another data set"),
        ({"normaliser": {"middle": [0.0] * 3, "limit": None}}, "'half'"),
        ({"preprocessor": {"image": 32, "colour": "grey"}}, "unknown key 'colour'"),
    ):
        settings.write_text(json.dumps({k: v for k, v in {**whole, **change}.items() if v is not None}))
        with pytest.raises(StageError, match=rf"(?s)policy\.json.*{words}"):
            load_actor(tmp_path / "out" / "policy")


def test_data_beyond_their_own_bounds_train_no_policy(tmp_path):
    robots = Dots()
    robots.spec = replace(SPEC, low=(-0.1,) * 3, high=(0.1,) * 3)
    with pytest.raises(StageError, match=r"(?s)dots: .*bounds are -0\.1 and 0\.1.*emt robots inspect"):
        run(tmp_path / "out", robots=robots, mode="frozen")


@pytest.mark.parametrize("mode", ["full", "lora", "frozen"])
def test_milestones_are_policies_and_change_nothing(tmp_path, mode):
    rank = {"lora_rank": 4, "train": ("connector", "language")} if mode == "lora" else {}
    settings = {"mode": mode, "steps": 6, "ema": 0.9, **rank}
    plain = run(tmp_path / "plain", **settings)
    kept = run(tmp_path / "kept", milestones=(2, 4), **settings)
    weights = {name: row for name, row in plain.manifest["files"].items() if name.endswith(".safetensors")}
    assert weights.items() <= kept.manifest["files"].items()
    frames = Dots().episodes[0].frames[:2]
    acted = [
        load_actor(tmp_path / "kept" / place).act(frames, ["go left", "go right"])
        for place in ("milestones/2", "milestones/4", "policy")
    ]
    assert not np.array_equal(acted[0], acted[1]) and not np.array_equal(acted[1], acted[2])
    with pytest.raises(ValueError, match="milestones"):
        FinetuneConfig(**{**SMALL, "steps": 6, "milestones": (6,)}).check()
