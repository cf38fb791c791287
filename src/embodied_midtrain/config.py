"""Typed configs from YAML and from the command line, by cattrs and tyro.

A config is a frozen dataclass that stands in the module of what it configures. A recipe file and the command
line fill the same types; a key that no field has is refused with the nearest one that exists.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import cattrs
import tyro
import yaml
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

T = TypeVar("T")


class ConfigError(ValueError):
    """A recipe or option cannot be understood; the message names the key and the remedy."""


@cache
def _converter() -> cattrs.Converter:
    """One for all: what it has worked out of a type serves again."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    # cattrs calls int("x"), which also takes 3.7 and True; a recipe should say what it means.
    converter.register_structure_hook(int, lambda v, _: _exact(v, int))
    converter.register_structure_hook(bool, lambda v, _: _exact(v, bool))
    converter.register_structure_hook(str, lambda v, _: _exact(v, str))
    converter.register_structure_hook(float, lambda v, _: float(v) if not isinstance(v, bool) else _exact(v, float))
    return converter


def _exact(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"wanted {kind.__name__}, got {value!r}")
    return value


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "there are") -> str:
    """The end of a message about a name that does not exist: the nearest that does, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.45)
    return f"did you mean '{near[0]}'?" if near else f"{otherwise}: {', '.join(known) or 'none'}"


def structure(kind: type[T], values: Any, where: str = "config") -> T:
    """Build a config from plain values.

    Raises:
        ConfigError: on unknown keys (with "did you mean"), missing ones and wrong types, each with its path.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: wanted a mapping of settings, got {type(values).__name__}")
    try:
        return _converter().structure(values, kind)
    except (ClassValidationError, ForbiddenExtraKeysError) as error:
        raise ConfigError("\n".join(_explain(error, where))) from error


def _explain(error: BaseException, where: str) -> list[str]:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [f.name for f in dataclasses.fields(error.cl)]
        lines = []
        for key in sorted(error.extra_fields):
            lines.append(f"{where}: unknown key '{key}'; {did_you_mean(key, known)}")
        return lines
    if isinstance(error, BaseExceptionGroup):
        lines = []
        for inner in error.exceptions:
            notes = [n for n in getattr(inner, "__notes__", ()) if hasattr(n, "name") or hasattr(n, "index")]
            path = where
            for note in notes:
                path += f".{note.name}" if hasattr(note, "name") else f"[{note.index}]"
            lines.extend(_explain(inner, path))
        return lines
    if isinstance(error, KeyError):
        return [f"{where}: missing key {error}"]
    return [f"{where}: {error}"]


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: where it is missing, is not YAML, or is no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"there is no recipe {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: wanted a mapping of settings at the top")
    return values


def parse(function: Callable[..., T], arguments: Sequence[str], prog: str, *, prefixes: bool = False) -> T:
    """Call `function` with what the command line says; its signature and docstring are the help.

    Args:
        prefixes: name options by where they stand in nested configs (--select.k); else by their last name (--k).
    """
    markers = () if prefixes else (tyro.conf.OmitArgPrefixes,)
    # Left to itself, tyro shows a docstring up to its first section only, and so no examples.
    description = (inspect.getdoc(function) or "").split("\n\nArgs:")[0]
    return tyro.cli(function, args=list(arguments), prog=prog, config=markers, description=description or None)
