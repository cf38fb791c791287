"""A study of seconds: a tiny random backbone, twelve samples, six episodes, a benchmark that costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from embodied_midtrain.studies.study import Study, load_study
from tests import tiny
from tests.midtraining.small_pool import make_pool, samples
from tests.recipes import small_data

BENCHMARK = "tests.recipes.small_data:Stage"
LOOP: dict[str, Any] = {"steps": 2, "batch": 4, "micro_batch": 2, "precision": "fp32"}


def data(root: Path) -> Path:
    """A pool of books, one of charts, and robot data."""
    rows = samples()
    make_pool(root / "books", [r for r in rows if r.source == "books"])
    make_pool(root / "charts", [r for r in rows if r.source == "charts"])
    small_data.libero(root / "robot")
    return root


def values(root: Path) -> dict[str, Any]:
    """Three variants, one of which shares a stage with another; two seeds, two heads."""
    on_both = {"stage": "midtrain", "inputs": {"pool": "both"}}
    robot = {"stage": "finetune", "inputs": {"demos": "robot", "vqa": "books"}}
    playing = {"benchmark": BENCHMARK, "tasks": ["close", "open"], "episodes": 2, "videos": 0, "group": 1}
    return {
        "name": "toy",
        "backbone": str(tiny.folder("smolvlm")),
        "folder": str(root),
        "training_seeds": [0, 1],
        "data": {
            "books": {"path": "books"},
            "charts": {"path": "charts"},
            "robot": {"path": "robot"},
            "both": {"stage": "compose", "inputs": {"pools": ["books", "charts"]}, "settings": {"budget": 12}},
        },
        "settings": {
            "midtrain": {"lr": 1e-4},
            "finetune": {**LOOP, "image": 32, "warmup_steps": 1, "widths": [16, 8]},
        },
        "variants": {
            "base": {"title": "as it is"},
            "mid": {"stages": [on_both]},
            "mid+robot": {"stages": [on_both, {**robot, "settings": {"chunk": 4, "executed": 2}}]},
        },
        "heads": {"query": {"head": "query"}, "fast": {"head": "fast", "fast": {"fast_vocabulary": 300}}},
        "benchmarks": {"stage": {"demos": "robot", "chunk": 4, "executed": 2, "rollout": playing}},
    }


def study(root: Path, **changes: Any) -> Study:
    """Of `values` with some of them changed, by way of a file."""
    path = root / "toy.yaml"
    path.write_text(yaml.safe_dump(values(root) | changes, sort_keys=False))
    return load_study(path)
