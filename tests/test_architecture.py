"""Imports point only down the floors that docs/architecture.md draws, and go round in no circle on one of them."""

import ast
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "embodied_midtrain"
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"


def floors():
    """The floor of each room, as drawn; what stands in brackets explains."""
    drawn = PAGE.read_text().split("imports only point down\n```\n")[1].split("```")[0]
    found = {}
    for number, rooms in re.findall(r"floor (\d)((?:(?! floor).)*)", re.sub(r"\([^)]*\)", "", drawn), re.S):
        found |= dict.fromkeys((room.rstrip("/") for room in rooms.split()), int(number))
    return found


def imported(path):
    """The rooms that a file names, also where it imports late or for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] for name in names if name.startswith(f"{PACKAGE.name}."))


def test_imports_point_only_down():
    floor, below = floors(), defaultdict(set)
    assert {path.stem for path in PACKAGE.glob("[!_]*")} == set(floor), "a room that is not drawn, or no longer there"
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for other in {*imported(path)} & {*floor} - {room}:
            assert floor[other] <= floor[room], f"{path.relative_to(PACKAGE)} imports {other} from a floor above"
            below[room].add(other)
    TopologicalSorter(below).prepare()
