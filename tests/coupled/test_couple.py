"""The pool of coupled questions: what it holds, what it leaves out and why."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from embodied_midtrain.artifacts import ArtifactMismatch, Skips, StageError, read_json
from embodied_midtrain.cli import main
from embodied_midtrain.coupled.baselines import CEILINGS
from embodied_midtrain.coupled.couple import CoupleConfig, checked, couple, read_facts
from embodied_midtrain.coupled.questions import CATEGORY, FAMILIES
from embodied_midtrain.episodes import BadEpisode, StoredFrames
from embodied_midtrain.midtraining.midtrain import MidtrainConfig, midtrain
from embodied_midtrain.sources.opening import open_pool
from tests.coupled import made
from tests.midtraining.test_midtrain import FROZEN_VISION
from tests.tiny import backbone

ALL = CoupleConfig(looks_per_episode=17, questions_per_look=len(CATEGORY))


def pool_of(folder, found, config=ALL):
    artifact = couple(folder, config, episodes=made.as_traces(found))
    return artifact, list(open_pool(folder, skips=Skips())), list(read_facts(folder))


def test_a_pool_that_others_read(tmp_path):
    artifact, samples, facts = pool_of(tmp_path / "out", made.several())
    assert len(samples) == artifact.counts["used"] == len(facts) > 100
    assert {sample.source for sample in samples} == {f"etc-{name}" for name in FAMILIES}
    assert len({sample.key for sample in samples}) == len(samples)
    assert [sample.id for sample in samples] == [row["id"] for row in facts]
    for sample, row in zip(samples, facts, strict=True):
        sample.check()
        assert len(sample.pictures) == len(row["views"]) and sample.answer == row["answer"]
    assert {row["kind"] for row in facts} == set(CATEGORY)


def test_a_second_call_gives_the_same(tmp_path):
    config = CoupleConfig(seed=3)
    one = couple(tmp_path / "a", config, episodes=made.as_traces(made.several()))
    two = couple(tmp_path / "b", config, episodes=made.as_traces(made.several()))
    assert one.manifest["files"] == two.manifest["files"]
    assert couple(tmp_path / "a", config, episodes=made.as_traces(made.several())).fingerprint == one.fingerprint
    with pytest.raises(ArtifactMismatch, match="episodes"):
        couple(tmp_path / "a", config, episodes=made.as_traces(made.several(), "others"))
    # Episodes of another recording have the same names; their samples do not.
    other = couple(tmp_path / "c", config, episodes=made.as_traces(made.several(), "others"))
    keys = [{s.key for s in open_pool(made.path, skips=Skips())} for made in (one, other)]
    assert keys[0].isdisjoint(keys[1]) and len(keys[0]) == len(keys[1])


def test_categories_have_their_shares(tmp_path):
    config = CoupleConfig(looks_per_episode=17, questions_per_look=2, weights={"spatial": 1, "goal": 3})
    artifact, _, _ = pool_of(tmp_path / "out", made.several(8), config)
    counts = {name: row["samples"] for name, row in artifact.counts["sources"].items()}
    assert set(counts) == {"etc-spatial", "etc-goal"}
    assert counts["etc-goal"] / counts["etc-spatial"] == pytest.approx(3, rel=0.25)


def test_answers_come_out_even(tmp_path):
    _, _, facts = pool_of(tmp_path / "out", made.several(8), CoupleConfig(looks_per_episode=17))
    for kind in ("side", "nearer", "same-thing", "holding"):
        answers = Counter(row["answer"] for row in facts if row["kind"] == kind)
        assert max(answers.values()) <= 0.6 * answers.total() + 2, (kind, answers)


def test_what_is_told_of_the_answers(tmp_path):
    artifact, _, facts = pool_of(tmp_path / "out", made.several(6))
    told = read_json(artifact.file("coupled.json"))
    for kind, row in told["kinds"].items():
        assert row["questions"] == sum(one["kind"] == kind for one in facts)
        assert row["category"] == CATEGORY[kind]
    assert told["baselines"]["same-thing"]["words"] is not None and told["baselines"]["path"]["words"] is not None


@pytest.mark.parametrize(
    ("absent", "missing", "reason"),
    [
        ("cameras", {"path", "path-end", "grasp-point"}, "no calibration"),
        ("seen", {"what-at", "box", "graspable", "visible"}, "masks of things not known"),
        ("things", {"direction", "side", "where"}, "positions of things not known"),
        ("place", {"direction", "plan", "phase", "path"}, "place of the gripper not known"),
        ("held", {"holding", "describe"}, "what is held not known"),
        ("forward", {"direction"}, "the way the robot faces not known"),
    ],
)
def test_what_is_not_known_is_not_asked(tmp_path, absent, missing, reason):
    artifact, _, facts = pool_of(tmp_path / "out", [made.without(made.trace(), **{absent: 1})])
    assert not missing & {row["kind"] for row in facts}
    left = read_json(artifact.file("coupled.json"))["left_out"]
    assert any(reason in reasons for reasons in left.values()), left
    assert facts, "other kinds are asked"


def test_nothing_known_at_all_is_refused(tmp_path):
    bare = made.without(made.trace(), cameras=1, seen=1, things=1, place=1, held=1, touched=1, opening=1)
    with pytest.raises(StageError, match="truth-every"):
        couple(tmp_path / "out", CoupleConfig(), episodes=made.as_traces([bare]))


def test_a_calibration_that_does_not_fit_is_found_and_not_used(tmp_path):
    trace = made.trace()
    flipped = [replace(c, focal=(-c.focal[0], c.focal[1])) for c in trace.view("agent").cameras]
    agent = replace(trace.view("agent"), cameras=flipped)
    artifact, _, facts = pool_of(tmp_path / "out", [replace(trace, views=(agent, trace.view("wrist")))])
    assert not {"path", "grasp-point"} & {row["kind"] for row in facts}
    assert artifact.counts["skipped"] == {"calibration does not fit the pictures": 1}


def test_a_calibration_that_cannot_be_checked_is_used_and_said(tmp_path):
    trace = made.without(made.trace(), seen=1, fingers=1)
    trace = replace(trace, views=(trace.view("agent"),))
    still, skips = replace(trace, place=np.repeat(trace.place[:1], len(trace.place), 0)), Skips()
    assert all(view.cameras is not None for view in checked(still, skips).views)
    assert skips.counts() == {"calibration could not be checked": len(still.views)}
    artifact, _, _ = pool_of(tmp_path / "out", [still, made.trace()])
    assert artifact.counts["skipped"] == skips.counts()


def test_the_command_says_which_kinds_need_no_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "embodied_midtrain.coupled.couple.open_traces", lambda *_, **__: made.as_traces(made.several(6))
    )
    monkeypatch.setitem(CEILINGS, "graspable", 0.0)
    assert main(["couple", "--episodes", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "without the picture" in line]
    told = read_json(tmp_path / "out/coupled.json")["baselines"]
    assert [line.partition(":")[0] for line in said] == [kind for kind, own in told.items() if own["held"] is False]
    assert any(line.startswith("graspable: ") and "above the 0%" in line for line in said)


def test_hidden_things_are_not_asked_about(tmp_path):
    trace = made.trace()
    seen = trace.view("agent").seen.copy()
    columns = np.indices(seen.shape[1:])[1]
    # All but a strip of the red cube is hidden behind something nameless.
    for picture in seen:
        red = picture == 3
        picture[red & (columns > columns[red].min() + 1 if red.any() else red)] = 0
    agent = replace(trace.view("agent"), seen=seen)
    _, _, facts = pool_of(tmp_path / "out", [replace(trace, views=(agent,))])
    asked = [row for row in facts if row["kind"] not in ("plan", "phase", "next", "path", "path-end")]
    assert asked and not any("red cube" in row["question"] for row in asked if row["kind"] != "visible")
    left = read_json(tmp_path / "out" / "coupled.json")["left_out"]
    assert left["grasp-point"].get("grasp point hidden") and left["meant"]


def test_empty_masks(tmp_path):
    trace = made.trace()
    views = tuple(replace(view, seen=np.zeros_like(view.seen)) for view in trace.views)
    _, _, facts = pool_of(tmp_path / "out", [replace(trace, views=views)])
    assert {row["answer"] for row in facts if row["kind"] in ("what-at", "visible")} == {"none of the objects", "no"}
    assert not {"where", "box", "meant", "side", "direction", "describe", "graspable"} & {row["kind"] for row in facts}
    left = read_json(tmp_path / "out" / "coupled.json")["left_out"]
    assert left["where"] == {"a thing not clearly in view": 17 * 2 * len(made.NAMES)}
    assert left["side"] == {"no thing clearly in view": 17}


def test_a_scene_that_stands_out_of_view(tmp_path):
    _, _, facts = pool_of(tmp_path / "out", [made.trace(shift=(0.5, 0.0, 0.0))])
    left = read_json(tmp_path / "out" / "coupled.json")["left_out"]
    assert left["path"] == {"path leaves the picture": 17} and left["grasp-point"]["grasp point out of view"] > 0
    assert {row["views"][0] for row in facts if row["kind"] in ("where", "box", "visible")} == {"wrist"}
    assert not {"path", "grasp-point", "meant", "direction"} & {row["kind"] for row in facts}


def unreadable(view):
    def read(wanted):
        raise BadEpisode("broken video")

    return replace(view, frames=StoredFrames(view.frames.shape, read))


def test_pictures_that_cannot_be_read(tmp_path):
    trace = made.without(made.trace(), fingers=1, seen=1)
    broken = replace(trace, id="made/broken", views=tuple(map(unreadable, trace.views)))
    artifact, _, facts = pool_of(tmp_path / "out", [broken, trace])
    # When motion is to tell whether the calibration fits, and at each look; of the camera on the hand it cannot.
    assert artifact.counts["skipped"] == {"broken video": 1 + 17, "calibration could not be checked": 2}
    assert {row["episode"] for row in facts} == {trace.id}
    with pytest.raises(StageError, match="skipped: 18 broken video"):
        couple(tmp_path / "none", ALL, episodes=made.as_traces([broken]))


def test_an_instruction_that_names_nothing_in_view(tmp_path):
    trace = made.trace(instruction="tidy up")
    trace.held[:] = trace.touched[:] = -1
    far = replace(trace, place=trace.place + np.float32(5.0))
    _, _, facts = pool_of(tmp_path / "out", [replace(far, fingers=None)])
    left = read_json(tmp_path / "out" / "coupled.json")["left_out"]
    assert "meant" not in {row["kind"] for row in facts}
    assert left["meant"] == {"no thing that the instruction is carried out on": 17}
    assert left["grasp-point"]["episode without a grasp"] == 1
    assert left["phase"]["the episode is of one phase"] == 16, "one choice is none"
    assert left["plan"] == {"no gripper event and no known thing ahead": 17}


def shout(sample):
    """Loses region marks, too."""
    user, answer = (replace(turn, text=turn.text.upper()) for turn in sample.turns)
    return None if "LEFT" in answer.text else replace(sample, id="mine", turns=(user, answer))


def test_a_rewriter_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.coupled.made.shout", shout, raising=False)
    config = CoupleConfig(weights={"spatial": 1}, rewrite="tests.coupled.made:shout")
    artifact, samples, facts = pool_of(tmp_path / "out", made.several(), config)
    assert samples and all(sample.turns[0].text.isupper() for sample in samples)
    assert [(s.id, s.turns[0].text, s.answer) for s in samples] == [
        (r["id"], r["question"], r["answer"]) for r in facts
    ]
    assert artifact.counts["skipped"].keys() == {"left out by the rewriter", "rewriter: bad geometry"}
    with pytest.raises(ValueError, match=r"package\.module:function"):
        couple(tmp_path / "b", CoupleConfig(rewrite="os"), episodes=made.as_traces(made.several()))


@pytest.mark.parametrize("config", [{"weights": {"spatail": 1}}, {"weights": {"goal": -1}}, {"questions_per_look": 0}])
def test_settings_that_cannot_be_meant(tmp_path, config):
    with pytest.raises(ValueError, match=r"wanted|no category"):
        couple(tmp_path / "out", CoupleConfig(**config), episodes=made.as_traces([made.trace()]))


def test_facts_are_plain_json(tmp_path):
    pool_of(tmp_path / "out", [made.trace()])
    for line in (tmp_path / "out" / "questions-000000.jsonl").read_text().splitlines():
        assert {"kind", "episode", "step", "views", "about", "answer"} <= json.loads(line).keys()


def test_a_backbone_is_trained_on_it(tmp_path):
    pool_of(tmp_path / "pool", [made.trace()])
    config = MidtrainConfig(**{**FROZEN_VISION, "weights": {"etc-spatial": 0.5, "etc-trajectory": 0.5}})
    trained = midtrain(tmp_path / "out", config, backbone=backbone("compact"), pool=tmp_path / "pool")
    assert trained.counts["skipped"] == {}
