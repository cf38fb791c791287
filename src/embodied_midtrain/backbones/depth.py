"""A language model read at one of its layers: what comes after it does not run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def only_layers(language: Any, layers: int) -> Iterator[None]:
    """Within it the language model ends after so many layers, without the final norm."""
    whole, norm = language.layers, language.norm
    assert isinstance(whole, nn.ModuleList)
    language.layers, language.norm = whole[:layers], nn.Identity()
    try:
        yield
    finally:
        language.layers, language.norm = whole, norm
