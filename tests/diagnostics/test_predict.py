"""Which figure goes with success: against scipy, and honest where there are few variants."""

import json

import numpy as np
import pytest
from scipy import stats

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.cli import main
from embodied_midtrain.diagnostics.predict import Variant, _spearmans, predict


def made(count, seed=0):
    rng = np.random.default_rng(seed)
    success = rng.uniform(0, 1, count)
    columns = {"good": success + 0.05 * rng.standard_normal(count), "noise": rng.standard_normal(count)}
    columns["against"] = -success
    return [Variant(f"v{n}", success[n], {k: float(v[n]) for k, v in columns.items()}) for n in range(count)]


def test_against_scipy():
    variants = made(14)
    found = {own.figure: own for own in predict(variants)}
    for name, own in found.items():
        x, y = [v.figures[name] for v in variants], [v.success for v in variants]
        wanted = stats.spearmanr(x, y)
        assert own.spearman == pytest.approx(wanted.statistic) and own.variants == 14
        assert own.low <= own.spearman <= own.high
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 4, (30, 9)).astype(float), rng.standard_normal((30, 9))
    wanted = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert np.allclose(_spearmans(x, y), wanted)
    assert found["good"].verdict == "goes with success" and found["against"].verdict == "goes against success"
    assert found["noise"].verdict == "cannot tell"


def test_few_variants_say_so():
    for count in (1, 3, 5):
        assert {own.verdict.split(" (")[0] for own in predict(made(count))} == {"too few variants"}
    (exact,) = predict([Variant(str(n), n / 10, {"f": n}) for n in range(7)])
    # Two of the 7! orders are as far from 0.
    assert exact.p == pytest.approx(2 / 5040) and exact.verdict == "goes with success"


def test_many_figures_make_one_of_them_look_good_by_chance():
    rng = np.random.default_rng(1)
    said = 0
    for _ in range(15):
        success = rng.uniform(0, 1, 8)
        variants = [Variant(str(n), success[n], {str(k): rng.standard_normal() for k in range(20)}) for n in range(8)]
        said += any("goes" in own.verdict for own in predict(variants))
    assert said <= 3


def test_what_is_missing_and_what_is_wrong(tmp_path, capsys):
    variants = made(8)
    variants[0] = Variant("v0", 0.5, {"good": float("nan"), "flat": 1.0})
    variants[1:] = [Variant(v.name, v.success, {**v.figures, "flat": 1.0}) for v in variants[1:]]
    found = {own.figure: own for own in predict(variants)}
    assert found["good"].variants == 7 and found["flat"].verdict == "the same for all variants"
    with pytest.raises(StageError, match="more than once"):
        predict([variants[1], variants[1]])
    with pytest.raises(StageError, match="no share"):
        predict([Variant("a", 50.0, {"f": 1.0})])
    with pytest.raises(StageError, match="no variant has a figure"):
        predict([Variant("a", 0.5, {})])
    table = tmp_path / "figures.json"
    table.write_text(json.dumps({"variants": [vars(v) for v in made(7)]}))
    assert main(["probe", "predict", "--run", str(tmp_path), "--out", str(tmp_path / "out.json")]) == 0
    assert "goes with success" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["predictions"][0]["variants"] == 7
    table.write_text('{"variants": [{"name": "a"}]}')
    assert main(["probe", "predict", "--run", str(tmp_path)]) == 1
    assert "no table of variants" in capsys.readouterr().err
