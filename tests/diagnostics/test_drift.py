import json

import pytest
import torch

from embodied_midtrain.artifacts import ArtifactMismatch, Skips, StageError
from embodied_midtrain.diagnostics.distance import weight_distances
from embodied_midtrain.diagnostics.drift import DriftConfig, drift, print_drift, row_states
from embodied_midtrain.diagnostics.drift import _of_robots as drift_of_robots
from embodied_midtrain.sources.opening import open_pool
from tests.midtraining.test_midtrain import make_pool, samples
from tests.tiny import Dots, backbone

CONFIG = DriftConfig(rows=12, batch_size=5)


@pytest.fixture
def pool(tmp_path):
    return open_pool(make_pool(tmp_path / "pool", samples()), skips=Skips())


def test_frames_come_from_whole_episodes_evenly_also_where_these_are_short():
    config = DriftConfig(rows=12, frames_per_episode=5)
    items = [item.key for item in drift_of_robots(Dots(episodes=12, length=3), config)]
    assert [id for _, id in items] == [f"e{n}/{frame:04d}" for n in (0, 4, 8) for frame in range(3)]


def moved(layer: int, by: float):
    """A backbone whose language layer has moved by a relative distance."""
    model = backbone("compact")
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.language.layers[layer].parameters():
            step = torch.randn_like(weight)
            weight += by * weight.norm() / step.norm() * step
    return model


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
def test_a_model_is_where_it_is(tmp_path, pool, kind):
    artifact = drift(
        tmp_path / "out", CONFIG, base=backbone(kind), model=backbone(kind), pool=pool, robots=Dots(length=5)
    )
    facts = json.loads(artifact.file("drift.json").read_text())
    assert {own["relative"] for own in facts["weights"]["parts"].values()} == {0}
    assert set(facts["weights"]["parts"]) == {"vision", "connector", "language", "all"}
    assert set(facts["weights"]["layers"]) == {"0", "1", "2"}
    assert facts["layers"] == [0, 1, 2, 3]
    for side in ("pool", "robot"):
        assert facts["cka"][side]["rows"] == 12
        for token in ("image", "text"):
            assert facts["cka"][side][token] == pytest.approx([1] * 4, abs=1e-5)


def test_what_moved_shows_where_it_moved(tmp_path, pool, capsys):
    base, model = backbone("compact"), moved(1, 0.5)
    artifact = drift(tmp_path / "out", CONFIG, base=base, model=model, pool=pool)
    facts = json.loads(artifact.file("drift.json").read_text())
    layers = {name: own["relative"] for name, own in facts["weights"]["layers"].items()}
    assert layers["0"] == layers["2"] == 0 and layers["1"] == pytest.approx(0.5, rel=1e-4)
    parts = facts["weights"]["parts"]
    assert parts["vision"]["relative"] == parts["connector"]["relative"] == 0 < parts["language"]["relative"] < 0.5
    assert parts["all"]["moved"] == pytest.approx(parts["language"]["moved"])
    # Layer 2 of the states is what the second layer gives out.
    text = facts["cka"]["pool"]["text"]
    assert text[:2] == pytest.approx([1, 1], abs=1e-5) and text[2] < 0.99999
    assert "robot" not in facts["cka"]
    print_drift(facts)
    shown = capsys.readouterr().out
    assert "0.50000" in shown and "linear CKA" in shown


def test_states_are_those_of_the_backbone(pool):
    model = backbone("compact")
    rows = [model.render(sample) for sample in list(pool)[:3]]
    batch = model.collate(rows)
    found = row_states(model, rows, (0, 2, 3), "fp32")
    for n, layer in enumerate((0, 2, -1)):
        states = model.states(batch, layer=layer)
        for row, text in zip(states, range(3), strict=True):
            real = batch["attention_mask"][text].bool()
            image = batch["input_ids"][text] == model.image_token_id
            assert torch.allclose(found["image"][n][text], row[image].mean(0), atol=1e-5)
            assert torch.allclose(found["text"][n][text], row[real & ~image].mean(0), atol=1e-5)


def test_bad_input_is_refused(tmp_path, pool):
    with pytest.raises(StageError, match="not of one architecture"):
        weight_distances(backbone("compact"), backbone("smolvlm"))
    with pytest.raises(ValueError, match="layers 0 to 3"):
        drift(tmp_path / "a", DriftConfig(layers=(4,)), base=backbone("compact"), model=backbone("compact"))
    with pytest.raises(ValueError, match="at least 2"):
        DriftConfig(rows=1).check()
    drift(tmp_path / "b", CONFIG, base=backbone("compact"), model=backbone("compact"), pool=pool)
    with pytest.raises(ArtifactMismatch, match="inputs model"):
        drift(tmp_path / "b", CONFIG, base=backbone("compact"), model=moved(0, 0.1), pool=pool)
