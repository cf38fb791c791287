"""`emt serve`: a policy as a server for vla-eval's benchmarks."""

from __future__ import annotations

import ipaddress
import logging
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.extras import require
from embodied_midtrain.policies.opening import load_actor
from embodied_midtrain.serving.protocol import Evaluation, open_protocol, protocol_names


def serve_command(
    policy: Annotated[str, tyro.conf.Positional] = "",
    benchmark: str | None = None,
    camera: str | None = None,
    convert: bool = False,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_batch: int = 16,
    max_wait: float = 0.005,
    max_megabytes: float = 16,
    list_benchmarks: bool = False,
    verbose: bool = False,
) -> None:
    """Serve a policy to vla-eval, which runs CALVIN, SimplerEnv, LIBERO, RoboCasa and others in their containers.

    The policy's actions are compared with the benchmark's before the first episode, and a run in which they differ is
    refused. Several simulators may connect at a time: their frames go through the policy as one batch.

    Examples:
        emt serve --list-benchmarks
        emt serve runs/mine/policy --benchmark libero-10
        emt serve runs/mine/policy --benchmark calvin-abc-d --convert --port 8001
        emt serve runs/mine/policy --benchmark my-protocol.yaml --camera wrist

    Args:
        policy: folder of 'emt finetune'.
        benchmark: protocol to play (a name, or a YAML file); by default what a client names, where that is known.
        camera: which of the benchmark's pictures the policy sees, in place of the protocol's.
        convert: convert actions to the benchmark's convention (units, rotation form, gripper) where both say enough.
        host: address to listen on; anything but this machine's own lets others drive the policy.
        port: to listen on; 0 picks a free one.
        max_batch: clients' frames in one forward pass at most.
        max_wait: seconds that a batch waits for more clients.
        max_megabytes: larger messages are refused.
        list_benchmarks: show the protocols that come with the package, and end.
        verbose: log each client.
    """
    if list_benchmarks:
        print("\n".join(describe(open_protocol(name)) for name in protocol_names()))
        return
    if not policy:
        raise StageError("which policy? Give the folder of 'emt finetune' (emt serve --help has examples).")
    if max_batch < 1 or max_wait < 0 or max_megabytes <= 0 or not 0 <= port < 2**16:
        raise ValueError("max_batch must be at least 1, max_wait not negative, max_megabytes above 0, port below 65536")
    anyio = require("anyio", "serve")
    require("vla_eval", "serve")
    from embodied_midtrain.serving.player import Player
    from embodied_midtrain.serving.server import serve_async

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")
    evaluation = open_protocol(benchmark) if benchmark is not None else None
    actor = load_actor(Path(policy))
    player = Player(
        actor, evaluation=evaluation, camera=camera, convert=convert, max_batch=max_batch, max_wait=max_wait
    )
    if evaluation is not None:
        own = evaluation.settings
        print(describe(evaluation))
        if (actor.chunk, actor.executed) != (own.chunk, own.executed):
            mine = f"{actor.executed} of {actor.chunk}"
            print(f"  note: the papers execute {own.executed} of {own.chunk} actions, this policy {mine}")
    if not _is_loopback(host):
        print(f"  note: {host} can be reached from other machines, and nobody is asked who they are")
    run = partial(serve_async, player, host=host, port=port, max_megabytes=max_megabytes)
    try:
        anyio.run(_announced, run, host, evaluation)
    except OSError as error:
        raise StageError(f"cannot listen on {host}:{port}: {error}; choose another --port") from error


async def _announced(run: Any, host: str, evaluation: Evaluation | None) -> None:
    anyio = require("anyio", "serve")
    async with anyio.create_task_group() as group:
        port = await group.start(run)
        print(f"serving on ws://{host}:{port} (ready: http://{host}:{port}/health); end with ctrl-c", flush=True)
        if evaluation is not None:
            url = f" --server-url ws://{host}:{port}" if port != 8000 else ""
            print(f"  vla-eval run --config {evaluation.path}{url}", flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def describe(evaluation: Evaluation) -> str:
    """A protocol in two lines."""
    own, spec = evaluation.settings, evaluation.spec
    return (
        f"{evaluation.name:<16}{own.title}: {own.episodes} episodes, {own.steps} steps, {own.executed} of {own.chunk} "
        f"actions executed, camera {own.camera}\n{'':<16}{spec.width} numbers, {spec.kind}, frame {spec.frame}, "
        f"rotation {spec.rotation}, {spec.rate:g} a second"
    )
