"""Stages on Ray: with a Ray that runs in this process, and once on a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embodied_midtrain.artifacts import Artifact, DiskFull
from embodied_midtrain.midtraining.compose import ComposeConfig
from embodied_midtrain.studies import cluster
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.cluster import OnRay, on_ray
from embodied_midtrain.studies.engine import State, work
from embodied_midtrain.studies.graph import Base, Given, Stage
from tests.midtraining.small_pool import make_pool, samples
from tests.studies.fakes import Mid


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class FakeRay:
    """What `OnRay` uses of Ray; tasks end in the order in which they were begun."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self) -> None:
        self.most = 0
        self._results: dict[int, Callable[[], Any]] = {}
        self.options: dict[str, Any] = {}

    def remote(self, function: Callable[..., Any]) -> Any:
        def options(**given: Any) -> Any:
            self.options = given
            return SimpleNamespace(remote=lambda *arguments: self._begin(lambda: function(*arguments)))

        return SimpleNamespace(options=options)

    def _begin(self, call: Callable[[], Any]) -> int:
        number = len(self._results)
        self._results[number] = call
        return number

    def wait(self, references: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        self.most = max(self.most, len(references))
        return references[:num_returns], references[num_returns:]

    def get(self, reference: int) -> Any:
        try:
            return self._results[reference]()
        except RayError:
            raise
        except Exception as error:
            raise RayTaskError(error) from error


def stages() -> dict[str, Stage]:
    """a and b; c of a, d of b."""
    first = {name: Stage("midtrain", Mid(), {"backbone": Base(name)}, name) for name in "ab"}
    later = {n: Stage("finetune", Mid(), {"backbone": first[of]}, n) for n, of in (("c", "a"), ("d", "b"))}
    return first | later


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: Callable[[Stage], State]) -> tuple[Any, FakeRay]:
    ray, made = FakeRay(), stages()
    monkeypatch.setattr(cluster, "do", lambda house, stage: outcome(stage))
    monkeypatch.setattr("embodied_midtrain.studies.engine.is_done", lambda house, stage: False)
    hands = OnRay(ray, 2, 3, 1.0)
    found = work(House(tmp_path, tmp_path), list(made.values()), hands, lambda *_: None)
    return {name: found[stage.key] for name, stage in made.items()}, ray


def test_as_many_at_a_time_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, ray = run(monkeypatch, tmp_path, lambda stage: State("done"))
    assert found == dict.fromkeys("abcd", State("done")) and ray.most == 2
    assert (ray.options["num_cpus"], ray.options["num_gpus"]) == (3, 1.0)


def test_what_is_lost_with_its_node_fails_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def outcome(stage: Stage) -> State:
        if stage.label == "a":
            raise RayError("the node died")
        return State("done")

    found, _ = run(monkeypatch, tmp_path, outcome)
    assert found["a"] == State("failed", "lost with its node: the node died")
    assert (found["b"].state, found["c"].state, found["d"].state) == ("done", "needs", "done")


def test_a_full_disk_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def outcome(stage: Stage) -> State:
        raise DiskFull("no space left")

    with pytest.raises(DiskFull):
        run(monkeypatch, tmp_path, outcome)


@pytest.mark.slow
def test_on_a_real_ray_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'embodied-midtrain[ray]'")
    rows = samples()
    for name, source in (("near", "books"), ("far", "charts")):
        make_pool(tmp_path / name, [row for row in rows if row.source == source])
    parts = {name: Given(name, name) for name in ("near", "far")}
    first = Stage("compose", ComposeConfig(budget=6), {"pools": parts}, "both")
    then = Stage("compose", ComposeConfig(budget=12), {"pools": {"first": first}}, "again")
    bad = Stage("compose", ComposeConfig(budget=0), {"pools": parts}, "bad")
    house = House(tmp_path / "out", tmp_path)
    with on_ray("", 0.0) as hands:
        found = work(house, [bad, first, then], hands, lambda *_: None)
    assert [found[stage.key].state for stage in (bad, first, then)] == ["failed", "done", "done"]
    assert "at least 1" in found[bad.key].why
    assert Artifact.open(house.of(then)).counts["shares"]["first"] == {"samples": 6, "drawn": 12, "repeated": 6}
