import random

import numpy as np
import pytest

from embodied_midtrain.backbones.compact.scenes import SIDE, Placed, Scene, compose, point_question, questions
from tests.backbones.compact.pictures import COLOURS, things


def test_a_seed_gives_one_scene() -> None:
    one, same, other = (compose(things(), random.Random(seed)) for seed in (3, 3, 4))
    assert one.image.tobytes() == same.image.tobytes() != other.image.tobytes()
    assert one.placed == same.placed


def test_things_are_where_they_are_said_to_be() -> None:
    seen = 0
    for seed in range(20):
        scene = compose(things(), random.Random(seed))
        pixels = np.asarray(scene.image)
        assert pixels.shape == (SIDE, SIDE, 3)
        for placed in scene.placed:
            x, y = (int(v * SIDE) for v in placed.centre)
            wanted = COLOURS[placed.label.split()[0]]
            # Another thing may cover a tenth, not the middle.
            seen += np.abs(pixels[y, x].astype(int) - wanted).max() < 12
    total = sum(len(compose(things(), random.Random(seed)).placed) for seed in range(20))
    assert seen / total > 0.97


def test_answers_are_true() -> None:
    kinds = set()
    for seed in range(60):
        rng = random.Random(seed)
        scene = compose(things(), rng)
        boxes = {p.label: p for p in scene.placed}
        for asked in questions(scene, ["ruby disc", "grey cat"], rng, 4):
            question, answer = (turn.text for turn in asked.turns)
            kinds.add(asked.kind)
            if asked.kind == "point by name":
                label = next(label for label in boxes if label in question)
                assert asked.target == boxes[label].centre == asked.turns[1].regions[0].values
            elif asked.kind == "point by size":
                assert asked.target == max(scene.placed, key=lambda p: p.area).centre
            elif asked.kind == "exists":
                assert (answer == "Yes.") == any(label in question for label in boxes)
            elif asked.kind == "count" and "things" in question:
                assert answer == f"{len(scene.placed)}."
            elif asked.kind == "count":
                assert answer == f"{sum(p.label in question for p in scene.placed)}."
            elif asked.kind == "relation" and question.startswith("Is the"):
                one, other = sorted((label for label in boxes if label in question), key=question.index)
                axis = 0 if "left" in question or "right" in question else 1
                less = boxes[one].centre[axis] < boxes[other].centre[axis]
                assert (answer == "Yes.") == (less == ("left" in question or "above" in question))
            elif asked.kind == "at":
                near = min(
                    scene.placed, key=lambda p: np.hypot(*np.subtract(p.centre, asked.turns[0].regions[0].values))
                )
                assert near.label in answer
    assert {"point by name", "exists", "count", "relation", "at", "box", "list"} <= kinds


def test_no_question_gives_a_later_answer_away() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        told: set[str] = set()
        for asked in questions(compose(things(), rng), ["grey cat"], rng, 4):
            assert told.isdisjoint(asked.about)
            told |= asked.about


def test_nothing_to_ask_about_nothing() -> None:
    empty = Scene(compose(things(), random.Random(0)).image, ())
    assert questions(empty, ["cat"], random.Random(0), 3) == []
    twins = Scene(empty.image, (Placed("cat", "", (0, 0, 0.2, 0.2)), Placed("cat", "", (0.5, 0.5, 0.7, 0.7))))
    assert point_question(twins, random.Random(0)) is None


@pytest.mark.parametrize(("box", "side"), [((0.0, 0.0, 0.2, 0.2), 5), ((0.6, 0.4, 1.0, 0.8), 5)])
def test_words_cover_boxes(box: tuple[float, float, float, float], side: int) -> None:
    from embodied_midtrain.backbones.compact.words import NOTHING, targets_of

    number = {NOTHING: 0, "cat": 1}
    found = np.array(targets_of("", [Placed("cat", "", box)], side, number)).reshape(side, side)
    rows, columns = np.nonzero(found)
    centres = ((columns + 0.5) / side, (rows + 0.5) / side)
    assert len(rows) > 0
    assert all(
        low <= c <= high for low, high, cs in ((box[0], box[2], centres[0]), (box[1], box[3], centres[1])) for c in cs
    )
