"""`emt drift`: how far an adapted backbone is from its base, in what it makes of pictures and in its weights.

Not in the papers: they measure what was forgotten by benchmarks only (arXiv 2605.25802). Weights say how far training
went; linear CKA says what that changed, on the pool and on the robot's frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embodied_midtrain.artifacts import Artifact, Skips, StageError, open_stage, read_json, write_json
from embodied_midtrain.backbones.backbone import IGNORED, Backbone, Rendered
from embodied_midtrain.backbones.opening import COMPACT, load_backbone
from embodied_midtrain.backbones.precision import Precision, autocast
from embodied_midtrain.diagnostics.cka import LinearCka
from embodied_midtrain.diagnostics.distance import in_order, weight_distances
from embodied_midtrain.episodes import ACTION_PROMPT, Robots
from embodied_midtrain.features.items import Item, SampleItem, target_stretch
from embodied_midtrain.features.pooling import Pooling, pool_states
from embodied_midtrain.progress import progress_bar
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.samples import BadSample, Pool
from embodied_midtrain.sources.opening import open_pool, sections

FILE = "drift.json"
KINDS: tuple[Pooling, ...] = ("image", "text")
SIDES = ("pool", "robot")


@dataclass(frozen=True)
class DriftConfig:
    """What the two models look at."""

    rows: int = 800
    """Samples, and frames, that both read; evenly over the pool's sources and the episodes."""
    frames_per_episode: int = 5
    """Frames taken of each robot episode, evenly over its length."""
    layers: tuple[int, ...] = ()
    """Layers that are compared: 0 is what the language model reads, the highest what it gives out. None: all."""
    batch_size: int = 16
    """Rows in one forward pass."""
    prompt: str = ACTION_PROMPT
    """The user text that goes with a robot frame."""
    precision: Precision = "fp32"
    """Of the arithmetic; rounding to bf16 looks like a drift of about 0.001."""

    def check(self) -> None:
        """Raise ValueError on settings that cannot be meant."""
        if self.rows < 2 or self.batch_size < 1 or self.frames_per_episode < 1:
            raise ValueError(
                f"rows {self.rows}, batch_size {self.batch_size}, frames_per_episode {self.frames_per_episode}: "
                "at least 2, 1 and 1"
            )


def drift(
    out: Path,
    config: DriftConfig,
    *,
    base: Backbone,
    model: Backbone,
    pool: Pool | None = None,
    robots: Robots | None = None,
    overwrite: bool = False,
) -> Artifact:
    """Compare a backbone with the one that it was adapted from.

    The artifact holds `drift.json`: relative L2 distance of the weights by part and layer, and for the pool and the
    robot's frames CKA of each layer, of the states at image tokens and at text tokens, each averaged over a row.

    Raises:
        StageError: on models of different architectures, or a pool or robot data without usable rows.
        ValueError: on settings that cannot be meant.
    """
    config.check()
    inputs: dict[str, Artifact | str] = {"base": base.fingerprint(), "model": model.fingerprint()}
    inputs |= {name: given.fingerprint() for name, given in (("pool", pool), ("robot", robots)) if given is not None}
    with open_stage(out, "drift", config, inputs, overwrite=overwrite) as run:
        if run.done:
            return run.artifact()
        layers = config.layers or tuple(range(model.layers + 1))
        if not all(0 <= layer <= model.layers for layer in layers):
            raise ValueError(f"layers {layers}: {model.name} has layers 0 to {model.layers}")
        facts: dict[str, Any] = {
            "base": base.name,
            "model": model.name,
            "weights": weight_distances(base, model),
            "layers": list(layers),
            "cka": {},
        }
        given = {
            "pool": _of_pool(pool, config) if pool else None,
            "robot": _of_robots(robots, config) if robots else None,
        }
        for side, items in given.items():
            if items is not None:
                part = run.part(side)
                if part is None:
                    skips = Skips()
                    found = _alike(skips, side, items, base, model, layers, config)
                    part = run.commit_part(side, found, skips=skips)
                facts["cka"][side] = {"rows": part["rows"], **part["cka"]}
        write_json(run.file(FILE), facts)
        return run.finish({f"{side} rows": own["rows"] for side, own in facts["cka"].items()})


def _of_pool(pool: Pool, config: DriftConfig) -> Iterator[Item]:
    parts = sections(pool)
    share = -(-config.rows // len(parts))
    for part in parts:
        yield from (SampleItem(sample) for sample in itertools.islice(part.samples(), share))


def _of_robots(robots: Robots, config: DriftConfig) -> Iterator[Item]:
    """Frames of as many episodes as it takes, evenly over the data."""
    episodes = sum(1 for _ in robots)
    wanted = max(1, -(-config.rows // config.frames_per_episode))
    every = max(1, episodes // wanted)
    items = target_stretch(robots, config.frames_per_episode, config.prompt).items()
    by_episode = itertools.groupby(items, key=lambda item: (item.key[0], item.key[1].rpartition("/")[0]))
    for number, (_, frames) in enumerate(by_episode):
        if number % every == 0:
            yield from frames


def _alike(
    skips: Skips,
    side: str,
    items: Iterator[Item],
    base: Backbone,
    model: Backbone,
    layers: Sequence[int],
    config: DriftConfig,
) -> dict[str, Any]:
    alike = {kind: [LinearCka() for _ in layers] for kind in KINDS}
    read = 0
    with progress_bar(f"drift on {side}", config.rows) as bar:
        while read < config.rows and (
            some := list(itertools.islice(items, min(config.batch_size, config.rows - read)))
        ):
            pair = [_rendered(skips, item, base, model) for item in some]
            usable = [rows for rows in pair if rows is not None]
            if usable:
                a = row_states(base, [rows[0] for rows in usable], layers, config.precision)
                b = row_states(model, [rows[1] for rows in usable], layers, config.precision)
                for kind in KINDS:
                    whole = a[kind][0].isfinite().all(1)
                    for n, own in enumerate(alike[kind]):
                        own.add(a[kind][n][whole], b[kind][n][whole])
            read += len(usable)
            bar.advance(len(usable))
    if read < 2:
        raise StageError(f"the {side} has {read} usable rows; at least 2 are needed")
    return {"rows": read, "cka": {kind: [round(one.value(), 6) for one in alike[kind]] for kind in KINDS}}


def _rendered(skips: Skips, item: Item, base: Backbone, model: Backbone) -> tuple[Rendered, Rendered] | None:
    try:
        return item.render(base), item.render(model)
    except BadSample as error:
        skips.add(error.reason, "/".join(item.key), error.detail)
        return None


@torch.inference_mode()
def row_states(
    backbone: Backbone, rows: Sequence[Rendered], layers: Sequence[int], precision: Precision
) -> dict[Pooling, list[Tensor]]:
    """Of each kind of token and each layer, the mean state of each row: [rows, hidden]."""
    batch = {key: value.to(backbone.device) for key, value in backbone.collate(rows).items()}
    with autocast(backbone.device, precision):
        states = backbone.layer_states(batch, max(layers))
    ids, real, learnt = batch["input_ids"], batch["attention_mask"], batch["labels"] != IGNORED

    def pooled(layer: int, kind: Pooling) -> Tensor:
        return pool_states(states[layer].float(), ids, real, learnt, backbone.image_token_id, kind).cpu()

    return {kind: [pooled(layer, kind) for layer in layers] for kind in KINDS}


def drift_command(
    out: Path,
    model: str,
    base: str = COMPACT,
    config: DriftConfig = DriftConfig(),
    pool: str | None = None,
    images: Path | None = None,
    robots: Path | None = None,
    camera: str | None = None,
    overwrite: bool = False,
) -> None:
    """Say how far an adapted backbone is from its base: weights by part and layer, and what each layer makes of inputs.

    Without pool and robot data only the weights are compared.

    Examples:
        emt drift --base compact --model runs/quickstart/midtrain/selected/model --pool runs/quickstart/pool \\
            --robots runs/quickstart/demos --out runs/quickstart/drift
        emt drift --base Qwen/Qwen3-VL-2B-Instruct --model runs/mine/midtrained/model --out runs/mine/drift

    Args:
        out: folder for the result.
        model: the adapted backbone: a folder, or a name on the hub.
        base: what it was adapted from.
        config: what they look at.
        pool: samples that both read.
        images: folder that image paths in a conversation file start from.
        robots: robot data whose frames both read.
        camera: which pictures of the robot data, where they hold several.
        overwrite: replace a result that was made from other inputs or settings.
    """
    artifact = drift(
        out,
        config,
        base=load_backbone(base, dtype=torch.float32),
        model=load_backbone(model, dtype=torch.float32),
        pool=open_pool(pool, images=images, skips=Skips()) if pool else None,
        robots=open_robots(robots, Skips(), camera=camera) if robots else None,
        overwrite=overwrite,
    )
    print_drift(read_json(artifact.file(FILE)))


def print_drift(facts: dict[str, Any]) -> None:
    """The distances of the parts, and a line for each layer."""
    print(f"{facts['model']} against {facts['base']}: |W - W0| / |W0|")
    for part, own in in_order(facts["weights"]["parts"]):
        print(f"  {part:<10}{own['relative']:>10.5f}  {own['weights']:>13,} weights")
    columns = [(side, kind) for side in SIDES if side in facts["cka"] for kind in KINDS]
    heads = "".join(f"{f'{side} {kind}':>13}" for side, kind in columns)
    print(f"{'layer':<7}{'weights':>10}{heads}" + ("   (linear CKA, 1: unchanged)" if columns else ""))
    for n, layer in enumerate(facts["layers"]):
        moved = facts["weights"]["layers"].get(str(layer - 1))
        weights = f"{moved['relative']:.5f}" if moved else ""
        values = "".join(f"{facts['cka'][side][kind][n]:>13.4f}" for side, kind in columns)
        print(f"{layer:<7}{weights:>10}{values}")
