"""Latency of a policy per chunk, by head, against the backbone's own forward on the same frame and prompt.

    python bench/latency.py
    python bench/latency.py --layers 12 --calls 100 --heads query flow

Each head is new (its time does not depend on what it has learnt), on the compact backbone. A call is one frame in, one
chunk out: resizing, tokens, vision, language model, head, and the actions in the robot's units. The floor is the same
preprocessing and one forward of vision and language model. Calls of all take turns, so that a busy machine is busy for
all alike. The MLP head of VLM4VLA (query) is to have at least 0.9 of the floor's speed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import autocast
from embodied_midtrain.benchmarks.metaworld import SPEC
from embodied_midtrain.policies.build import build_net
from embodied_midtrain.policies.codec import ActionCodec
from embodied_midtrain.policies.encoder import shorten
from embodied_midtrain.policies.fast import FastConfig, FastTokenizer
from embodied_midtrain.policies.parallel import ParallelConfig
from embodied_midtrain.policies.policy import Policy
from embodied_midtrain.policies.prefix import Room
from embodied_midtrain.policies.preprocess import Preprocessor
from embodied_midtrain.policies.shape import PolicyShape
from embodied_midtrain.robots.actions import ActionNormaliser

HEADS = ("query", "parallel", "parallel-steps", "flow", "fast")
INSTRUCTION = "open the drawer"


def policy(backbone: Backbone, head: str, chunk: int) -> Policy:
    kind, _, variant = head.partition("-")
    shape = PolicyShape(
        mode="full",
        head=kind,
        chunk=chunk,
        executed=chunk,
        camera=224,
        hidden=backbone.hidden,
        layer=-1,
        widths=(1024, 1024, 512, 256),
        reader_width=256,
        reader_queries=8,
        reader_blocks=2,
        sight=None,
        room=Room.of(backbone),
        parallel=ParallelConfig(placeholders="steps" if variant else "numbers"),
    )
    rng = np.random.default_rng(0)
    # Ramps from one random place to another: about as smooth as a robot's chunks are.
    ends = rng.uniform(-1, 1, (2, 500, 1, SPEC.width))
    share = np.linspace(0, 1, chunk)[None, :, None]
    ramps = (ends[0] * share + ends[1] * (1 - share)).astype(np.float32)
    fast = FastTokenizer.fit(ramps, FastConfig()) if shape.speaks else None
    torch.manual_seed(0)
    net = build_net(shape, SPEC, backbone, fast)
    codec = ActionCodec(SPEC, ActionNormaliser((0.0,) * SPEC.width, (1.0,) * SPEC.width))
    return Policy(backbone, shape, Preprocessor(), codec, net)


def floor(backbone: Backbone) -> Callable[[np.ndarray], object]:
    """The backbone's own forward."""
    preprocessor = Preprocessor()

    @torch.inference_mode()
    def forward(frames: np.ndarray) -> object:
        rows = preprocessor.render(backbone, frames, [INSTRUCTION])
        with autocast(backbone.device, "auto"):
            return backbone.states(backbone.collate(rows))

    return forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--layers", type=int, help="of the language model; by default all")
    parser.add_argument("--chunk", type=int, default=10)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=5)
    args = parser.parse_args()

    backbone = load_backbone("compact")
    if args.layers:
        shorten(backbone, args.layers)
    acts: dict[str, Callable[[np.ndarray], object]] = {"backbone": floor(backbone)}
    for head in args.heads:
        made = policy(backbone, head, args.chunk)
        acts[head] = lambda frames, made=made: made.act(frames, [INSTRUCTION])
    taken: dict[str, list[float]] = {name: [] for name in acts}
    rng = np.random.default_rng(0)
    for call in range(args.warm_up + args.calls):
        frames = rng.integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
        for name, act in acts.items():
            started = time.perf_counter()
            act(frames)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if call >= args.warm_up:
                taken[name].append(time.perf_counter() - started)
    threads = "" if backbone.device.type == "cuda" else f", {torch.get_num_threads()} threads"
    print(
        f"compact, {backbone.layers} layers, {backbone.device.type}{threads}; chunk of {args.chunk} x {SPEC.width}, "
        f"{args.calls} calls each, milliseconds"
    )
    print(f"{'head':<16}{'median':>9}{'99th':>9}{'speed of the floor':>20}")
    median = {name: float(np.median(seconds)) for name, seconds in taken.items()}
    for name, seconds in taken.items():
        share = median["backbone"] / median[name]
        print(f"{name:<16}{1e3 * median[name]:>9.1f}{1e3 * np.quantile(seconds, 0.99):>9.1f}{share:>20.2f}")
    print(json.dumps({"median_seconds": median}))


if __name__ == "__main__":
    main()
