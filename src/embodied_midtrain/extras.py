"""Optional packages, imported when they are needed, with an error that names the extra that brings them."""

from __future__ import annotations

import importlib
from types import ModuleType

from embodied_midtrain.artifacts import StageError


def require(module: str, extra: str) -> ModuleType:
    """Import `module`.

    Raises:
        StageError: where it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise
        raise StageError(
            f"{module} is not installed; it comes with: pip install 'embodied-midtrain[{extra}]'"
        ) from error
