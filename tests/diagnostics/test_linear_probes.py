"""Closed form against scikit-learn and plain numpy; chance where there is nothing to read."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from embodied_midtrain.diagnostics import linear_probes
from embodied_midtrain.diagnostics.linear_probes import LinearProbes

EPISODES, EACH, DIM, FOLDS = 40, 25, 12, 4


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((EPISODES * EACH, DIM)) @ rng.standard_normal((DIM, DIM)) + 3).astype(np.float32)
    episode = np.repeat(np.arange(EPISODES), EACH)
    shuffle = rng.permutation(len(episode))
    fold = rng.permutation(np.arange(EPISODES) % FOLDS)
    return features[shuffle], episode[shuffle], fold, rng


def scaled(features):
    return (features - features.mean(0)) / features.std(0)


def test_numbers_are_what_ridge_regressions_say(data, monkeypatch):
    features, episode, fold, rng = data
    monkeypatch.setattr(linear_probes, "PENALTIES", (0.05,))
    values = np.stack(
        [features[:, 0] + 0.5 * rng.standard_normal(len(features)), rng.standard_normal(len(features))], 1
    )
    values = values.astype(np.float32) * [1.0, 100.0] + [7.0, -3.0]
    found = LinearProbes(features, episode, fold).numbers(values.astype(np.float32), np.array([0, 1]), 0)
    wrong, plain = np.zeros(2), np.zeros(2)
    for n in range(FOLDS):
        inside = fold[episode] != n
        x, y = scaled(features)[inside], values[inside]
        # The penalty is in units of the mean variance of a feature.
        own = Ridge(alpha=0.05 * x.var(0).mean() * inside.sum()).fit(x, y)
        wrong += ((values[~inside] - own.predict(scaled(features)[~inside])) ** 2).sum(0)
        plain += ((values[~inside] - y.mean(0)) ** 2).sum(0)
    assert found.parts == pytest.approx(1 - wrong / plain, abs=1e-4)
    assert found.value == pytest.approx(np.mean(found.parts)) and found.low < found.value < found.high
    assert found.parts[0] > 0.8 and abs(found.parts[1]) < 0.1


def test_classes_are_what_discriminants_say(data, monkeypatch):
    features, episode, fold, rng = data
    monkeypatch.setattr(linear_probes, "PENALTIES", (1e-7,))
    lean = features @ rng.standard_normal((DIM, 3)) + 2 * rng.standard_normal((len(features), 3)) + [0, 0, 4]
    classes = lean.argmax(1)
    found = LinearProbes(features, episode, fold).classes(classes, 0)
    right = np.zeros(3)
    for n in range(FOLDS):
        inside = fold[episode] != n
        own = LinearDiscriminantAnalysis(solver="svd", priors=[1 / 3] * 3).fit(features[inside], classes[inside])
        hits = own.predict(features[~inside]) == classes[~inside]
        right += np.bincount(classes[~inside], hits, minlength=3)
    wanted = right / np.bincount(classes)
    assert found.parts == pytest.approx(wanted, abs=0.01) and 0.6 < found.value < 1


def test_the_penalty_is_chosen(data):
    """Fewer rows than dimensions: a small penalty alone would read noise."""
    features, episode, fold, rng = data
    wide = rng.standard_normal((len(features), 900)).astype(np.float32)
    wide[:, :DIM] += features
    target = features[:, :1] - features[:, 1:2]
    found = LinearProbes(wide, episode, fold).numbers(target, np.array([0]), 0)
    plain = []
    for n in range(FOLDS):
        inside = fold[episode] != n
        own = Ridge(alpha=1e-5 * inside.sum()).fit(scaled(wide)[inside], target[inside])
        plain.append(own.score(scaled(wide)[~inside], target[~inside]))
    assert found.value > np.mean(plain) + 0.05


def test_chance_where_there_is_nothing_to_read(data):
    features, episode, fold, rng = data
    probes = LinearProbes(features, episode, fold)
    nothing = probes.numbers(rng.standard_normal((len(features), 3)).astype(np.float32), np.array([0, 0, 1]), 0)
    assert nothing.low < 0.02 and len(nothing.parts) == 2
    coin = probes.classes(rng.integers(0, 2, len(features)), 0)
    assert abs(coin.value - 0.5) < 0.06 and coin.low < 0.52


def test_the_interval_holds_the_truth():
    """Over many data sets, 95 % intervals of a known accuracy hold it about as often."""
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        episode = np.repeat(np.arange(60), 10)
        classes = rng.integers(0, 2, len(episode))
        # Each episode leans to its own side: frames of one are no independent draws.
        lean = rng.standard_normal(60)[episode]
        features = np.stack([2.0 * classes - 1 + lean + rng.standard_normal(len(episode)), lean * 0], 1)
        features[:, 1] = rng.standard_normal(len(episode))
        found = LinearProbes(features.astype(np.float32), episode, np.arange(60) % 5).classes(classes, seed)
        # Phi(1 / sqrt 2): the means are 2 apart, the spread is that of lean and noise.
        held += found.low <= 0.7602 <= found.high
    assert held >= 33
