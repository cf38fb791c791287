"""`emt export model`: a mid-trained backbone or a policy as a folder for others, with its model card."""

from __future__ import annotations

import shutil
from pathlib import Path

from embodied_midtrain.artifacts import MANIFEST, Artifact, StageError, atomic_path, write_atomic
from embodied_midtrain.policies.policy import BACKBONE, HEAD, SETTINGS
from embodied_midtrain.release.card import Told, write_card
from embodied_midtrain.release.policy_card import write_policy_card

CARD = "README.md"
STAGES = {"midtrain": "model", "finetune": "policy"}


def export_model(out: Path, made: Artifact, told: Told, *, title: str | None = None) -> Path:
    """Copy the model out of an 'emt midtrain' or 'emt finetune' artifact and write its card beside it.

    Raises:
        StageError: an artifact of another stage, or a folder that is there and holds something else.
    """
    stage = str(made.manifest["stage"])
    if stage not in STAGES:
        raise StageError(f"{made.path} was made by 'emt {stage}'; give an 'emt midtrain' or 'emt finetune' folder.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise StageError(f"{out} is not an empty folder; give a new one.")
    title = title or out.resolve().name
    card = write_card(made, told, title=title) if stage == "midtrain" else write_policy_card(made, told, title=title)
    with atomic_path(out) as folder:
        _copy(made.file(STAGES[stage]), folder)
        write_atomic(folder / CARD, card)
    return out


def _copy(source: Path, target: Path) -> None:
    # Copied without their modes: weights are written through private temporary files, which others could not read.
    shutil.copytree(source, target, copy_function=shutil.copyfile)


def files_of(folder: Path) -> list[Path]:
    """What goes to the hub: all files but hidden ones, in alphabetical order.

    Raises:
        StageError: where there is no model, or a file that could run as code when it is loaded.
    """
    if not folder.is_dir():
        raise StageError(f"there is no folder {folder}; make one with 'emt export model'.")
    if (folder / MANIFEST).is_file():
        raise StageError(f"{folder} is an artifact; make a folder for others of it with 'emt export model'.")
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    if not (folder / "config.json").is_file() and not (folder / SETTINGS).is_file():
        raise StageError(f"{folder} holds no model: neither config.json nor {SETTINGS}.")
    if unsafe := [path.name for path in found if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".py")]:
        raise StageError(
            f"{folder} holds files that run code when they are opened: {', '.join(unsafe)}. Take them out."
        )
    wanted = [HEAD, SETTINGS, f"{BACKBONE}/config.json"] if (folder / SETTINGS).is_file() else []
    if missing := [name for name in wanted if not (folder / name).is_file()]:
        raise StageError(f"{folder} is a policy without {', '.join(missing)}.")
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def card_of(folder: Path) -> str:
    """The card in a folder.

    Raises:
        StageError: where there is none: nothing goes to the hub without saying what it is.
    """
    if not (folder / CARD).is_file():
        raise StageError(f"{folder} has no {CARD}; 'emt export model' writes one.")
    return (folder / CARD).read_text()


def export_model_command(
    made: Path,
    out: Path,
    title: str | None = None,
    base: str | None = None,
    licence: str | None = None,
    pool: str | None = None,
    images: Path | None = None,
    selection: Path | None = None,
    retention: Path | None = None,
    drift: Path | None = None,
    rollouts: tuple[Path, ...] = (),
) -> None:
    """Copy a mid-trained backbone or a policy into a folder for others, with a filled model card.

    The more you name, the more the card says: licences need the pool and the selection.

    Examples:
        emt export model --made runs/quickstart/midtrain/selected --base compact --pool runs/quickstart/pool \\
            --selection runs/quickstart/select/estimator --rollouts runs/quickstart/rollouts/selected \\
            --out exports/compact-selected
        emt export model --made runs/quickstart/policies/selected --rollouts runs/quickstart/rollouts/selected \\
            --out exports/policy

    Args:
        made: folder of 'emt midtrain' or 'emt finetune'.
        out: a new folder.
        title: of the card; by default the folder's name.
        base: what was mid-trained: a hub name, or "compact".
        licence: of the weights, by the hub's short names, such as apache-2.0.
        pool: the pool that the selection was made from.
        images: folder that image paths of the pool start from.
        selection: folder of 'emt select'.
        retention: folder of 'emt retention'.
        drift: folder of 'emt drift'.
        rollouts: folders of 'emt rollout'.
    """
    opened = Artifact.open(made)
    told = Told(
        base=base,
        licence=licence,
        pool=pool,
        images=images,
        selection=Artifact.given(selection, "select"),
        retention=Artifact.given(retention, "retention"),
        drift=Artifact.given(drift, "drift"),
        rollouts=tuple(Artifact.open(path, "rollout") for path in rollouts),
    )
    folder = export_model(out, opened, told, title=title)
    for path in files_of(folder):
        print(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}")
    print(f"{folder}: ready; 'emt push {folder} NAME --dry-run' shows what would go to the hub.")
