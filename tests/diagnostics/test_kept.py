"""Several abilities are several tests."""

from types import SimpleNamespace

from embodied_midtrain.diagnostics.kept import summarise

ABILITIES = ("captions", "charts", "ocr")


def table(lost):
    """Of 20 questions each, the second model loses as many as `lost` says."""
    question = SimpleNamespace(chance=0.1, sample=SimpleNamespace(source="made"))
    rows = [
        {"model": model, "ability": ability, "right": model == "base" or n >= count, "right_other": None}
        for model in ("base", "mine")
        for ability, count in zip(ABILITIES, lost, strict=True)
        for n in range(20)
    ]
    asked = {ability: [question] * 20 for ability in ABILITIES}
    found = summarise(rows, ["base", "mine"], asked, SimpleNamespace(choices=10))["abilities"]
    assert [own["shares"] for own in found.values()] == [
        [s["share"] for s in o["right"].values()] for o in found.values()
    ]
    return {name: own["against"]["mine"] for name, own in found.items()}


def test_a_loss_has_to_survive_all_tests():
    found = table((6, 0, 0))
    # By itself .03; with the four tests that are made, and the same six pairs in "all", it is no finding.
    assert 0.03 < found["captions"]["p"] < 0.04 and found["captions"]["p_adjusted"] > 0.1
    assert found["captions"]["outcome"] == "cannot tell"
    found = table((16, 0, 0))
    assert {name: own["outcome"] for name, own in found.items()} == {
        "captions": "lost",
        "charts": "cannot tell",
        "ocr": "cannot tell",
        "all": "lost",
    }
