import numpy as np
import pytest

from embodied_midtrain.proximity import duplicates
from embodied_midtrain.proximity.duplicates import near_duplicates


def rows(count=600, copies=40, seed=0):
    """Rows in no relation, and near-copies of some of them later on."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (count, 16))
    features[-copies:] = features[:copies] * rng.uniform(0.5, 2, (copies, 1)) + rng.normal(0, 0.01, (copies, 16))
    return features.astype(np.float32)


def reference(features, threshold):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = np.tril(unit @ unit.T, -1)
    return np.flatnonzero(cosines.max(1) > threshold), cosines


def test_all_pairs_against_numpy(monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", 100)
    features = rows()
    wanted, cosines = reference(features, 0.6)
    found = near_duplicates(features, 0.6)
    assert found.rows.tolist() == wanted.tolist() and len(wanted) > 40
    assert found.of.tolist() == cosines[wanted].argmax(1).tolist()
    assert found.similarity == pytest.approx(cosines[wanted].max(1), abs=1e-5)


def test_the_first_of_copies_stays():
    found = near_duplicates(rows(), 0.99)
    assert found.rows.tolist() == list(range(560, 600)) and found.of.tolist() == list(range(40))


def test_clusters_find_copies_too():
    features = rows(3000, 300)
    found = near_duplicates(features, 0.99, exact=1000)
    # A copy lies next to its original; a cluster's border seldom runs between the two.
    assert len(found.rows) >= 290 and set(found.rows.tolist()) <= set(range(2700, 3000))


def test_nothing_and_nonsense():
    assert not len(near_duplicates(rows(copies=1)[:1], 0.9).rows)
    assert not len(near_duplicates(np.zeros((3, 4), np.float16), 0.9).rows)
    with pytest.raises(ValueError, match="give a cosine"):
        near_duplicates(rows(), 0.0)
