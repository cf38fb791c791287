"""Perplexity is what the model's own loss says; scores join features by name; every refusal has a name."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from embodied_midtrain.artifacts import Artifact, Skips, StageError, read_json
from embodied_midtrain.episodes import ACTION_PROMPT
from embodied_midtrain.features.extract import embed
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.proximity.score import ScoreConfig, read_scores, score
from embodied_midtrain.proximity.select import select
from embodied_midtrain.proximity.selectors import SelectConfig
from embodied_midtrain.proximity.text import TextConfig, fit_text, text_of
from embodied_midtrain.samples import Picture, question
from embodied_midtrain.sources.opening import open_pool
from tests.midtraining.test_midtrain import make_pool, samples
from tests.tiny import Dots, backbone

FAST = ScoreConfig(part_size=5, batch_size=4, precision="fp32", workers=1)


@pytest.fixture
def pool(tmp_path):
    broken = question("charts", "broken", Picture(data=b"no image"), "What?", "nothing")
    return open_pool(make_pool(tmp_path / "pool", [*samples()[:6], broken, *samples()[6:]]), skips=Skips())


def rows_of(artifact: Artifact):
    return [(s, i, v) for part in read_scores(artifact) for s, i, v in zip(*part, strict=True)]


@pytest.mark.parametrize("kind", ["compact", "smolvlm"])
def test_perplexity_is_the_models_own_loss(tmp_path, pool, kind):
    model = backbone(kind)
    found = rows_of(score(tmp_path / "out", FAST, pool=pool, backbone=model, max_bad=1.0))
    assert [i for _, i, _ in found] == [s.id for s in samples()]
    for (_, _, value), sample in zip(found, samples(), strict=True):
        row = model.render(sample)
        with torch.no_grad():
            logits = model.base(**model.collate([row])).logits[0, :-1]
        learnt = torch.tensor(row.learnt[1:])
        wanted = torch.nn.functional.cross_entropy(logits[learnt], torch.tensor(row.ids[1:])[learnt])
        assert value == pytest.approx(float(wanted), abs=2e-3)
    listed = (tmp_path / "out" / "skipped.jsonl").read_text()
    assert "charts/broken" in listed and "broken image" in listed


def test_words_and_going_on(tmp_path, pool):
    config = ScoreConfig(by="text", part_size=5)
    artifact = score(tmp_path / "out", config, pool=pool, target=Dots())
    prompts = [ACTION_PROMPT.format(instruction=e.instruction) for e in Dots()]
    model = fit_text([text_of(s, TextConfig()) for s in pool], prompts, TextConfig())
    assert rows_of(artifact)[0][2] == pytest.approx(model.score("What is it?"), abs=1e-5)
    whole = artifact.manifest["files"]
    # As after a kill: the last part is missing, and the manifest says "running".
    artifact.file("part-000002.parquet").unlink()
    text = artifact.file("manifest.json").read_text().replace('"status": "done"', '"status": "running"')
    artifact.file("manifest.json").write_text(text)
    again = score(tmp_path / "out", config, pool=pool, target=Dots())
    assert again.manifest["files"] == whole


def test_selecting_by_likelihood_and_by_words(tmp_path, pool):
    model = backbone("compact")
    settings = EmbedConfig(precision="fp32")
    near = embed(tmp_path / "pool-features", settings, backbone=model, pool=pool, max_bad=1.0)
    far = embed(tmp_path / "target-features", settings, backbone=model, target=Dots())
    now = score(tmp_path / "now", FAST, pool=pool, backbone=model, max_bad=1.0)
    with torch.no_grad():
        model.base.get_output_embeddings().weight.mul_(3.0)
    before = score(tmp_path / "before", FAST, pool=pool, backbone=model, max_bad=1.0)
    words = score(tmp_path / "words", ScoreConfig(by="text"), pool=pool, target=Dots())
    both = {"pool": near, "target": far}

    def order(name, selector, **given):
        artifact = select(tmp_path / name, SelectConfig(k=5, selector=selector), **both, **given)
        table = pq.read_table(artifact.file("scores.parquet"))
        return artifact, dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))

    values, earlier = ({i: v for _, i, v in rows_of(one)} for one in (now, before))
    artifact, by_now = order("p", "perplexity", scores=now)
    assert by_now == pytest.approx({i: -np.exp(v) for i, v in values.items()}, rel=1e-5)
    chosen = pq.read_table(artifact.file("selection.parquet"))["id"].to_pylist()
    assert chosen == sorted(values, key=values.__getitem__)[:5]
    _, by_delta = order("d", "delta-perplexity", scores=now, before=before)
    assert by_delta == pytest.approx({i: np.exp(earlier[i]) - np.exp(v) for i, v in values.items()}, rel=1e-4)
    _, by_words = order("w", "text", scores=words)
    assert len(by_words) == 12 and read_json(tmp_path / "w" / "selection.json")["estimator"] is None

    with pytest.raises(StageError, match="delta-perplexity needs --before"):
        order("x", "delta-perplexity", scores=now)
    with pytest.raises(StageError, match="takes no --scores"):
        order("x", "estimator", scores=now)
    with pytest.raises(StageError, match="holds scores by text"):
        order("x", "perplexity", scores=words)
    other = open_pool(make_pool(tmp_path / "other", samples()), skips=Skips())
    swapped = score(tmp_path / "swapped", ScoreConfig(by="text"), pool=other, target=Dots())
    with pytest.raises(StageError, match="different pools"):
        order("x", "text", scores=swapped)


def test_what_cannot_be_meant(tmp_path, pool):
    with pytest.raises(ValueError, match="takes a backbone"):
        score(tmp_path / "a", FAST, pool=pool)
    with pytest.raises(ValueError, match="takes a target"):
        score(tmp_path / "b", ScoreConfig(by="text"), pool=pool, backbone=backbone("compact"))
    score(tmp_path / "c", ScoreConfig(by="text"), pool=pool, target=Dots())
    with pytest.raises(StageError, match="inputs target"):
        score(tmp_path / "c", ScoreConfig(by="text"), pool=pool, target=Dots(4))
    (tmp_path / "c" / "part-000000.parquet").write_bytes(b"broken")
    with pytest.raises(StageError, match="is damaged"):
        rows_of(Artifact.open(tmp_path / "c"))
