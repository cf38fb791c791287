"""What can be answered without the picture is noticed, and nothing else."""

import numpy as np
import pytest

from embodied_midtrain.coupled.baselines import LEAST, baselines
from embodied_midtrain.coupled.tally import KEPT, Tally

THINGS = ("cube", "ball", "ring", "plate")
COUNT = 200


def rows(answer, shown=None, kind="side", count=COUNT):
    """Ten episodes; what `answer` and `shown` give for the number of the question, its thing and its episode."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        thing, episode = int(rng.integers(len(THINGS))), number % 10
        made.append(
            {
                "kind": kind,
                "episode": f"demo_{episode}",
                "views": ["agent"],
                "question": f"Where is the {THINGS[thing]}?",
                "answer": answer(rng, thing, episode),
                "pointed": [],
                "shown": [] if shown is None else [shown(rng, thing)],
            }
        )
    return made


def judged(made):
    (found,) = baselines(Tally(made)).values()
    return found


def coin(rng, thing, episode):
    return ("left", "right")[int(rng.integers(2))]


def marked(rng, thing, episode):
    return "<region>"


def test_an_answer_that_the_words_tell():
    found = judged(rows(lambda rng, thing, episode: ("left", "right")[thing % 2]))
    assert found["words"] == 1.0 and 0.4 < found["majority"] < 0.65 and found["held"] is False


def test_one_that_only_the_picture_tells():
    made = rows(coin)
    found = judged(made)
    commonest = max(sum(row["answer"] == side for row in made) for side in ("left", "right"))
    assert found["majority"] == commonest / COUNT
    assert 0.3 < found["words"] < 0.65 and found["held"] is True


def test_one_that_only_its_own_episode_tells():
    made = rows(lambda rng, thing, episode: ("left", "right")[episode % 2])
    for row in made:
        row["question"] += f" ({row['episode']})"
    assert judged(made)["words"] < 0.65, "other episodes do not tell"


def test_always_the_same_answer():
    found = judged(rows(lambda rng, thing, episode: "left"))
    assert (found["majority"], found["words"], found["held"]) == (1.0, 1.0, False)


def test_places_that_the_words_tell():
    found = judged(rows(marked, lambda rng, thing: [0.2 * thing, 0.9], kind="where"))
    assert found["words"] == 1.0 and found["majority"] < 0.5 and found["held"] is False
    # Of a box its middle.
    boxes = judged(rows(marked, lambda rng, thing: [0.2 * thing, 0.5, 0.2 * thing + 0.1, 0.7], kind="box"))
    assert boxes["words"] == 1.0


def test_places_that_only_the_picture_tells():
    found = judged(rows(marked, lambda rng, thing: rng.uniform(0, 1, 2).tolist(), kind="where"))
    # A circle of the radius .05 around any guess.
    assert max(found["words"], found["majority"]) < 0.05 and found["held"] is True


@pytest.mark.parametrize("shown", [None, lambda rng, thing: [0.5, 0.5]])
def test_of_few_nothing_is_said(shown):
    found = judged(rows(marked if shown else coin, shown, count=LEAST - 1))
    assert found["words"] is None and found["held"] is None and found["questions"] == LEAST - 1


def test_what_is_kept_does_not_grow_with_the_pool():
    made = rows(coin, count=KEPT + 50)
    tally = Tally(iter(made))
    assert tally.first == {"side": made[:KEPT]} and len(tally.episodes) == 10
    told = tally.kinds()["side"]
    assert told["questions"] == sum(told["answers"].values()) == judged(made)["questions"] == KEPT + 50
