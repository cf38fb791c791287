"""Stages that cost nothing, in place of the real ones: they write down what they were given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from embodied_midtrain.artifacts import Artifact, StageError, open_stage, write_atomic, write_json
from embodied_midtrain.benchmarks.rollout import EPISODES, RolloutConfig
from embodied_midtrain.episodes import Robots
from embodied_midtrain.policies.settings import FinetuneConfig
from embodied_midtrain.studies import engine
from embodied_midtrain.studies.calling import House
from embodied_midtrain.studies.graph import Stage

STAGES = {name: f"tests.studies.fakes:{name}" for name in ("midtrain", "finetune", "rollout", "drift")}


@dataclass(frozen=True)
class Mid:
    lr: float = 1e-4
    seed: int = 0
    fail: str = ""
    """What to fail with."""


@dataclass(frozen=True)
class Far:
    seed: int = 0


def _words(place: Path | str) -> str:
    """The way that a model has come; a backbone's own name where it is none."""
    file = Path(place) / "way.txt"
    return file.read_text() if file.is_file() else Path(place).name


def midtrain(out: Path, config: Mid, *, backbone: str, pool: Path | str) -> Artifact:
    given = {"backbone": _words(backbone), "pool": Artifact.open(pool)}
    with open_stage(out, "midtrain", config, given) as run:
        if run.done:
            return run.artifact()
        if config.fail == "bug":
            raise KeyError("surprise")
        if config.fail:
            raise StageError(config.fail)
        write_atomic(run.file("model/way.txt"), f"{_words(backbone)} > {config.lr:g} seed {config.seed}")
        counts = {"books": {"drawn": 6, "repeated": 2}, "charts": {"drawn": 6, "repeated": 0}}
        return run.finish({"composition": counts})


def finetune(
    out: Path,
    config: FinetuneConfig,
    *,
    backbone: str,
    demos: Robots,
    vqa: Path | None = None,
    start: str | None = None,
    cache: Path | None = None,
) -> Artifact:
    assert (start is None) or start == backbone
    given: dict[str, Artifact | str] = {"backbone": _words(backbone), "demos": demos.fingerprint()}
    with open_stage(out, "finetune", config, given | ({"vqa": Path(vqa).name} if vqa else {})) as run:
        if not run.done:
            beside = f" + {Path(vqa).name}" if vqa else ""
            way = f"{_words(backbone)} > {demos.name}{beside} {config.head} seed {config.seed}"
            write_atomic(run.file("policy/backbone/way.txt"), way)
            run.finish()
        return run.artifact()


def rollout(out: Path, config: RolloutConfig, actor: Path) -> Artifact:
    way = _words(actor / "policy" / "backbone")
    with open_stage(out, "rollout", config, {"policy": way}) as run:
        if not run.done:
            # What was mid-trained solves three of four, all else one of four.
            often = 3 if " > " in way.rsplit(" > ", 1)[0] else 1
            rows = [
                {"task": task, "episode": n, "state": 2 * n + 1, "start": f"{task} {n}", "instruction": "", "steps": 5}
                | {"success": int(hashlib.sha256(f"{way} {task} {n}".encode()).hexdigest(), 16) % 4 < often}
                for task in config.tasks
                for n in range(config.episodes)
            ]
            write_json(run.file(EPISODES), rows)
            run.finish()
        return run.artifact()


def drift(out: Path, config: Far, *, base: str, model: str, after: Path | None = None) -> Artifact:
    """After another, where it has prepared something."""
    with open_stage(out, "drift", config, {"base": _words(base), "model": _words(model)}) as run:
        if not run.done:
            far = _words(model).count(">") - _words(base).count(">")
            write_json(run.file("drift.json"), {"steps": [{"far": 9}, {"far": far}], "word": "no number"})
            run.finish()
        return run.artifact()


@contextmanager
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The labels of the stages that are done."""
    done: list[str] = []
    real = engine.call

    def call(house: House, stage: Stage) -> Artifact:
        done.append(stage.key)
        return real(house, stage)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "call", call)
        yield done
