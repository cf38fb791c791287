"""What `emt doctor` says of a machine, whole and broken in several ways."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from embodied_midtrain import doctor
from embodied_midtrain.cli import main
from embodied_midtrain.doctor import Check

NO_OPENGL = """
import ctypes

_real = ctypes.CDLL.__init__


def _without(self, name, *args, **kwargs):
    if name and any(part in str(name) for part in ("EGL", "libGL", "OpenGL", "OSMesa", "glfw")):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    _real(self, name, *args, **kwargs)


ctypes.CDLL.__init__ = _without
"""


def only(checks: Iterator[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_this_python_and_its_packages() -> None:
    assert doctor.python().state == "ok"
    found = {check.name: check for check in doctor.packages()}
    assert found["packages"].state == "ok" and "torch" in found["packages"].fact
    assert {f"packages [{extra}]" for extra in doctor.NEEDED_EXTRAS} <= set(found)
    assert not any("all" in name for name in found)


def test_a_package_that_is_not_there_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("gguf", "ray"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "mujoco" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = {check.name: check for check in doctor.packages()}
    compact, ray, sim = (found[f"packages [{name}]"] for name in ("compact", "ray", "sim"))
    assert compact == Check(
        "packages [compact]", "missing", "gguf is not installed", "pip install 'embodied-midtrain[compact]'"
    )
    assert ray.state == "warning", "what the quickstart does not need does not stop it"
    assert sim.state == "missing" and "mujoco is 1.0, wanted ==3.3.0" in sim.fact


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.2")
    check = doctor.python()
    assert check.state == "missing" and ">=3.11" in check.fact and check.mend


def test_a_frame_is_rendered() -> None:
    pytest.importorskip("mujoco", reason="mujoco is not installed: pip install 'embodied-midtrain[sim]'")
    check = doctor.rendering()
    if check.state != "ok" and "cannot render here" in check.fact:
        pytest.skip(f"this machine cannot render: {check.mend}")
    assert check.state == "ok" and float(check.fact.split()[0]) > 0


def test_no_rendering_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    (tmp_path / "sitecustomize.py").write_text(NO_OPENGL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = doctor.rendering()
    assert check.state == "missing" and "cannot render here" in check.fact
    assert check.mend == "apt-get install libegl1 libgl1 libgl1-mesa-dri"


def test_a_renderer_that_takes_its_process_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mujoco").mkdir()
    (tmp_path / "mujoco/__init__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = doctor.rendering()
    assert (check.state, check.fact) == ("missing", "the renderer crashed (SIGSEGV)")


def test_no_mujoco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['mujoco'] = None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = doctor.rendering()
    assert check.state == "missing" and check.mend == "pip install 'embodied-midtrain[sim]'"


def test_a_renderer_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    done = doctor._run([sys.executable, "-c", "import time; time.sleep(30)"])
    assert done.returncode == 124 and "no answer" in done.stderr


def test_weights_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embodied_midtrain.backbones.compact import weights

    monkeypatch.setenv("EMT_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "connector.safetensors")
    path = tmp_path / "packages" / Path(weights.VISION.member).name
    before = {check.name: check for check in doctor.weights()}
    assert before["weights, vision"].state == "warning" and "not fetched yet" in before["weights, vision"].fact
    assert before["weights, connector"].state == "missing"
    path.parent.mkdir()
    path.write_bytes(b"interrupted")
    damaged = only(doctor.weights(), "weights, vision")
    assert damaged.state == "warning" and "damaged" in damaged.fact and damaged.mend == f"rm '{path}'"
    monkeypatch.setattr(weights, "VISION", dataclasses.replace(weights.VISION, sha256=doctor.file_sha256(path)))
    assert only(doctor.weights(), "weights, vision").state == "ok"


@pytest.mark.parametrize(("gib", "state"), [(20, "ok"), (6, "warning"), (2, "missing")])
def test_memory(monkeypatch: pytest.MonkeyPatch, gib: int, state: str) -> None:
    real = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(available=gib * 2**30))
    monkeypatch.setattr(doctor, "_limits", lambda: iter([float("inf")]))
    check = doctor.memory()
    assert check.state == state and (check.mend != "") == (state != "ok")


def test_a_container_with_less_memory_than_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_limits", lambda: iter([3 * 2**30]))
    assert doctor.memory().state == "missing"


@pytest.mark.parametrize(("gib", "state"), [(20, "ok"), (5, "warning"), (1, "missing")])
def test_disk_of_a_folder_that_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gib: int, state: str
) -> None:
    real = doctor.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: real._replace(free=gib * 2**30))
    assert doctor.disk(tmp_path / "a/b", "disk").state == state


def test_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(
        doctor, "_run", lambda command: subprocess.CompletedProcess(command, "index" in command, "", "")
    )
    apt, pip = doctor.tools()
    assert apt.state == "warning" and "no apt-get and no dpkg-deb" in apt.fact
    assert pip.state == "warning" and "does not answer" in pip.fact
    monkeypatch.setattr(doctor, "_run", lambda command: subprocess.CompletedProcess(command, 1, "", ""))
    assert [c.state for c in doctor.tools()] == ["warning", "missing"]


FINE = Check("python", "ok", "3.11.2")
WARNED = Check("ray", "warning", "not installed", "pip install 'embodied-midtrain[ray]'")
BROKEN = Check("rendering", "missing", "no [EGL]", "apt-get install libegl1")


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["table", "json"])
def test_status_and_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter([FINE, WARNED]))
    assert main(["doctor", *flags]) == 0
    said = capsys.readouterr().out
    assert json.loads(said)["ready"] if flags else "The quickstart can run" in said
    monkeypatch.setattr(doctor, "examine", lambda: iter([FINE, WARNED, BROKEN]))
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *flags])
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    if flags:
        document = json.loads(said)
        assert not document["ready"] and document["checks"][2] == dataclasses.asdict(BROKEN)
    else:
        assert "missing: rendering" in said and "→ apt-get install libegl1" in said and "no [EGL]" in said


def test_every_check_of_this_machine_is_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "rendering", lambda: FINE)
    monkeypatch.setattr(doctor, "_run", lambda command: subprocess.CompletedProcess(command, 0, "", ""))
    checks = list(doctor.examine())
    assert len({check.name for check in checks}) >= 15
    assert all(check.fact for check in checks)
    assert all(check.mend for check in checks if check.state == "missing")
