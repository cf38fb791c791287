"""Features can be compared only where one backbone made them in one way."""

from __future__ import annotations

from embodied_midtrain.artifacts import Artifact, StageError


def check_same_space(first: Artifact, second: Artifact) -> None:
    """Raise `StageError` where two feature stores differ in backbone, pooling or layer, naming which."""
    differs = [
        f"{name}: {a!r} in {first.path}, {b!r} in {second.path}"
        for name in ("backbone", "pooling", "layer")
        for a, b in [(_fact(first, name), _fact(second, name))]
        if a != b
    ]
    if differs:
        raise StageError("these feature stores cannot be compared; embed one of them again:\n  " + "\n  ".join(differs))


def _fact(store: Artifact, name: str) -> object:
    return store.manifest["inputs"].get(name) if name == "backbone" else store.manifest["config"].get(name)
