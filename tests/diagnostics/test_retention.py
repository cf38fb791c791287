import io
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embodied_midtrain.artifacts import ArtifactMismatch, Skips, StageError
from embodied_midtrain.backbones.compact.check import likelihoods
from embodied_midtrain.diagnostics.abilities import consider, questions
from embodied_midtrain.diagnostics.retention import RetentionConfig, answer, retention
from embodied_midtrain.samples import Picture, question
from embodied_midtrain.sources.opening import open_pool
from tests.midtraining.test_midtrain import make_pool, picture, select
from tests.tiny import backbone, folder

CONFIG = RetentionConfig(captions=("clips",), ocr=(), charts=("charts",), spatial=(), questions=12, choices=4)
THINGS = ["cat", "dog", "bird", "fish", "ship", "car", "tree", "lamp", "ball", "book", "cup", "chair"]


def samples():
    clips = [question("clips", f"{n:02d}", picture(n), "What is this?", f"A {THINGS[n % 12]} {n}.") for n in range(16)]
    sides = [
        question("charts", f"side-{n}", picture(50 + n), "Is Oslo left or right of Bern?", ("left", "right")[n % 2])
        for n in range(10)
    ]
    sums = [
        question("charts", f"sum-{n}", picture(70 + n), f"How much is shown for {THINGS[n]}?", f"About {n + 3}.")
        for n in range(8)
    ]
    return [*clips, *sides, *sums]


@pytest.fixture
def pool(tmp_path):
    return open_pool(make_pool(tmp_path / "pool", samples()), skips=Skips())


def asked(pool, sources, excluded=(), **given):
    considered, seen = consider(pool, sources, excluded, most=given.pop("most", 100), seed=0)
    wanted = {"count": 100, "choices": 4, "seed": 0, **given}
    return questions("some", sources, considered, excluded, seen, **wanted)


def test_wrong_answers_answer_like_questions(pool):
    for q in asked(pool, ["charts"]):
        texts = [choice.text for choice in q.choices]
        assert texts[0] == q.sample.answer and len(set(texts)) == len(texts)
        if q.sample.id.startswith("side"):
            assert sorted(texts) == ["left", "right"] and q.chance == 0.5
        else:
            assert len(texts) == 4 and all(text.startswith("About") for text in texts)
        assert q.other.pictures != q.sample.pictures


def test_the_draw_depends_on_names_only(pool):
    few = asked(pool, ["clips"], count=5)
    more = asked(pool, ["clips"], count=9)
    assert len(few) == 5 and [q.sample.key for q in few] == [q.sample.key for q in more[:5]]
    assert few[0].choices == more[0].choices
    drawn, _ = consider(pool, ["clips"], (), most=5, seed=0)
    assert [row.sample.key for row in drawn["clips"]] == [q.sample.key for q in few]


def test_what_was_trained_on_is_not_asked_nor_its_picture(tmp_path):
    twin = question("clips", "twin", picture(3), "What is this?", "A cat seen again.")
    pool = open_pool(make_pool(tmp_path / "pool", [*samples(), twin]), skips=Skips())
    everything = {q.sample.id for q in asked(pool, ["clips"])}
    held_out = {q.sample.id for q in asked(pool, ["clips"], {("clips", "03")})}
    assert everything - held_out == {"03", "twin"}


def test_sources_that_lack_questions_are_made_up_for(pool):
    both = asked(pool, ["charts", "clips"], count=30)
    counts = {name: sum(q.sample.source == name for q in both) for name in ("charts", "clips")}
    assert counts == {"clips": 15, "charts": 15}
    assert sum(q.sample.source == "charts" for q in asked(pool, ["charts", "clips"], count=34)) == 18


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
def test_the_likeliest_answer_is_chosen(pool, kind):
    model = backbone(kind)
    some = asked(pool, ["clips"])[:6]
    config = RetentionConfig(precision="fp32", batch_size=4)
    found = answer(model, some, config)
    for q, row in zip(some, found, strict=True):
        rows = [model.render(question("s", "i", q.sample.pictures[0], "What is this?", c.text)) for c in q.choices]
        scores = likelihoods(model, rows)
        assert row["right"] == (int(np.argmax(scores)) == 0)


def test_all_models_answer_the_same_questions(tmp_path, pool):
    other = tmp_path / "other"
    changed = backbone("compact")
    with np.errstate(all="ignore"):
        for parameter in changed.language.parameters():
            parameter.data.mul_(3.0)
    changed.save(other)
    selection = select(tmp_path / "selection", samples()[:2])
    before = str(folder("compact"))
    out = tmp_path / "out"
    artifact = retention(out, CONFIG, before=before, after=[str(other)], pool=pool, exclude=[selection])
    facts = json.loads(artifact.file("retention.json").read_text())
    assert set(facts["abilities"]) == {"captions", "charts", "all"}
    assert facts["abilities"]["captions"]["questions"] == 12 and facts["abilities"]["captions"]["chance"] == 0.25
    assert facts["abilities"]["all"]["questions"] == artifact.counts["questions"]["captions"] + 12
    name = facts["models"][1]
    pair = facts["abilities"]["all"]["against"][name]
    rows = pq.read_table(artifact.file("answers.parquet")).to_pylist()
    shares = [
        np.mean([row["right"] for row in rows if row["model"] == model and row["ability"] == "charts"])
        for model in facts["models"]
    ]
    assert [facts["abilities"]["charts"]["right"][model]["share"] for model in facts["models"]] == pytest.approx(
        shares, abs=1e-4
    )
    assert pair["low"] <= pair["difference"] <= pair["high"]
    assert pair["outcome"] in ("gained", "lost", "cannot tell")
    assert ("clips", "00") not in {(row["source"], row["id"]) for row in rows}

    # A killed run asks only what is missing.
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    (out / "parts" / "01-charts.json").unlink()
    again = retention(out, CONFIG, before=before, after=[str(other)], pool=pool, exclude=[selection])
    assert again.fingerprint == artifact.fingerprint
    with pytest.raises(ArtifactMismatch, match="excluded 0"):
        retention(out, CONFIG, before=before, after=[str(other)], pool=pool)


def test_each_domain_is_an_ability_whatever_the_number_of_pictures(tmp_path):
    plan = [question("plan", str(n), picture(n), "Is it done?", ("yes", "no")[n % 2]) for n in range(12)]
    pairs = [
        replace(
            question("camera", str(n), picture(n), "Which one is higher?", ("first", "second")[n % 2]), pictures=two
        )
        for n in range(12)
        for two in [(picture(n), picture(40 + n), picture(60 + n))[: 2 + n % 2]]
    ]
    pool = open_pool(make_pool(tmp_path / "pool", [*plan, *pairs]), skips=Skips())
    config = replace(CONFIG, captions=(), charts=(), domains=("camera", "plan", "temporal"), choices=2)
    before = str(folder("compact"))
    artifact = retention(tmp_path / "out", config, before=before, after=[before], pool=pool)
    assert artifact.counts["questions"] == {"camera": 12, "plan": 12}
    assert artifact.counts["skipped"]["too few held-out questions"] == 3 + 1 + 1


def test_bad_input_is_refused(tmp_path, pool):
    before = str(folder("compact"))
    with pytest.raises(StageError, match="no ability has 10 held-out questions"):
        retention(tmp_path / "a", RetentionConfig(), before=before, after=[before], pool=pool)
    with pytest.raises(ValueError, match="--after"):
        retention(tmp_path / "b", CONFIG, before=before, after=[], pool=pool)
    with pytest.raises(ValueError, match="two abilities"):
        RetentionConfig(captions=("a",), ocr=("a",)).check()
    with pytest.raises(ValueError, match="choices 1"):
        RetentionConfig(choices=1).check()


def test_unreadable_pictures_are_left_out(tmp_path):
    broken = question("clips", "broken", Picture(path=tmp_path / "missing.png"), "What is this?", "A hole.")
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")

    class Two:
        name = "two"

        def __iter__(self):
            yield broken
            yield question("clips", "whole", Picture(data=file.getvalue()), "What is this?", "A square.")

    considered, _ = consider(Two(), ["clips"], (), most=10, seed=0)
    assert [row.sample.id for row in considered["clips"]] == ["whole"]
