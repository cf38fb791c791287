"""`emt push`: a folder of `emt export model` to the model hub.

The token is whatever huggingface_hub finds (HF_TOKEN, or a login); it is neither asked for, printed nor written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.extras import require
from embodied_midtrain.release.export import card_of, files_of


def push(folder: Path, name: str, *, private: bool = True, message: str = "") -> str:
    """Create the repository where there is none, and commit the folder's files to it; returns its address.

    Raises:
        StageError: a folder without a model or a card, a name that is none, no token, or the hub refuses.
    """
    hub = require("huggingface_hub", "train")
    errors = require("huggingface_hub.errors", "train")
    files = check(folder, name)
    api = hub.HfApi(library_name="embodied-midtrain")
    if hub.get_token() is None:
        raise StageError("no token for the hub: set HF_TOKEN, or log in with 'hf auth login'. Nothing was sent.")
    try:
        api.create_repo(name, private=private, exist_ok=True)
        operations: list[Any] = [
            hub.CommitOperationAdd(path_in_repo=str(path.relative_to(folder)), path_or_fileobj=str(path))
            for path in files
        ]
        done = api.create_commit(name, operations, commit_message=message or f"Upload {folder.resolve().name}")
    except (errors.HfHubHTTPError, OSError) as error:
        # The library's own words can hold request headers; its first line does not.
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageError(
            f"the hub did not take {name}: {first} Look whether the token may write there; the same command goes on."
        ) from error
    return str(done.commit_url)


def check(folder: Path, name: str) -> list[Path]:
    """The files that would go.

    Raises:
        StageError: a folder without a model or a card, or a name that is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name):
        raise StageError(f"{name!r} is no name of a repository; write OWNER/NAME")
    files = files_of(folder)
    card_of(folder)
    return files


def push_command(
    folder: Annotated[Path, tyro.conf.Positional],
    name: Annotated[str, tyro.conf.Positional],
    public: bool = False,
    message: str = "",
    dry_run: bool = False,
) -> None:
    """Send a folder of 'emt export model' to the model hub (private unless you say otherwise).

    Examples:
        emt push exports/compact-selected my-name/compact-selected --dry-run
        emt push exports/compact-selected my-name/compact-selected --public

    Args:
        folder: what 'emt export model' wrote.
        name: OWNER/NAME on the hub; made where there is none.
        public: everyone may see a repository that is made.
        message: of the commit.
        dry_run: show what would go, and send nothing.
    """
    files = check(folder, name)
    for path in files:
        print(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}")
    total = sum(path.stat().st_size for path in files)
    if dry_run:
        print(
            f"{len(files)} files, {total:,} bytes would go to {name} ({'public' if public else 'private'}); the card:"
        )
        print(card_of(folder))
        return
    print(f"{len(files)} files, {total:,} bytes: {push(folder, name, private=not public, message=message)}")
