"""Features can be compared only where one backbone made them in one way."""

from __future__ import annotations

from embodied_midtrain.artifacts import Artifact, StageError
from embodied_midtrain.features.store import open_features


def check_same_space(first: Artifact, second: Artifact) -> None:
    """Raise `StageError` where two feature stores are one, or differ in backbone, pooling, layer or width."""
    if first.path.resolve() == second.path.resolve() or first.fingerprint == second.fingerprint:
        raise StageError(
            f"{first.path} and {second.path} are the same features: nothing would be left to tell apart. Give the "
            "pool's as --pool and the robot's as --target."
        )
    differs = [
        f"{name}: {a!r} in {first.path}, {b!r} in {second.path}"
        for name in ("backbone", "pooling", "layer", "layers")
        for a, b in [(_fact(first, name), _fact(second, name))]
        if a != b
    ]
    if differs:
        raise StageError("these feature stores cannot be compared; embed one of them again:\n  " + "\n  ".join(differs))
    widths = open_features(first).dim, open_features(second).dim
    if widths[0] != widths[1]:
        raise StageError(
            f"features of {widths[0]} numbers in {first.path}, of {widths[1]} in {second.path}: embed one again."
        )


def _fact(store: Artifact, name: str) -> object:
    return store.manifest["inputs"].get(name) if name == "backbone" else store.manifest["config"].get(name, [])
