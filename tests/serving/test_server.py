"""The server against vla-eval's own client, and against clients that are none."""

import threading
from contextlib import contextmanager
from functools import partial

import anyio
import numpy as np
import pytest
import websockets
from anyio.from_thread import start_blocking_portal
from vla_eval.cli import smoke
from vla_eval.connection import Connection
from vla_eval.protocol.messages import Message, MessageType, pack_message, unpack_message
from vla_eval.runners.sync_runner import SyncEpisodeRunner

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.serving.player import Gripper, Player
from embodied_midtrain.serving.protocol import open_protocol
from embodied_midtrain.serving.server import serve_async
from tests.serving.conftest import LIBERO, Plain

BENCHMARK = LIBERO.classes[0]


@contextmanager
def served(actor, megabytes=1.0, **given):
    player = Player(actor, **given)
    with start_blocking_portal() as portal:
        run = partial(serve_async, player, host="127.0.0.1", port=0, max_megabytes=megabytes)
        future, port = portal.start_task(run)
        try:
            yield f"ws://127.0.0.1:{port}"
        finally:
            future.cancel()


def look(value=100, side=32, text="lift it", **more):
    frame = np.full((side, side, 3), value, np.uint8)
    frame[0, 0] = 10
    return {"images": {"agentview": frame}, "task_description": text, **more}


async def played(url, looks, benchmark=BENCHMARK):
    async with Connection(url, max_retries=1) as client:
        await client.connect(benchmark=benchmark)
        await client.start_episode({"task": {"name": "lift it"}})
        return client.server_info, [(await client.act(one))["actions"] for one in looks]


def test_a_chunk_is_played_action_by_action(actor):
    with served(actor) as url:
        info, actions = anyio.run(played, url, [look(n) for n in (100, 110, 120, 130)])
    assert actor.batches == [1, 1]
    assert [a.shape for a in actions] == [(7,)] * 4
    # Three of four predicted actions are executed, then it looks again.
    assert np.allclose([a[2] for a in actions], [0, 0.1, 0.2, 0])
    assert actions[0][0] == actions[2][0] < actions[3][0]
    assert info["embodied_midtrain"]["protocol"] == {
        "name": "libero_10", "steps": 520, "episodes": 500, "chunk": 4, "executed": 4,
    }  # fmt: skip
    assert info["embodied_midtrain"]["executed"] == 3 and info["embodied_midtrain"]["spec"]["scale"][0] == 0.05
    assert info["action_spec"]["rotation"]["format"] == "axis_angle"


def test_mirrored_pictures_are_turned_back(actor):
    with served(actor) as url:
        _, known = anyio.run(played, url, [look(200)])
        _, unnamed = anyio.run(partial(played, benchmark=None), url, [look(200)])
    # The dark corner is at the left of what was sent.
    assert known[0][3] == np.float32(200 / 255) and unnamed[0][3] == np.float32(10 / 255)


def test_clients_share_batches_and_none_gets_anothers_actions():
    slow = threading.Event()

    class Slow(Plain):
        def act(self, frames, instructions):
            if not self.batches:
                slow.wait(10)
            return super().act(frames, instructions)

    actor = Slow()
    found = {}

    async def all_clients(url):
        async def one(n):
            found[n] = (await played(url, [look(10 * n, side=32 if n % 3 else 48, text="x" * n)] * 2))[1]

        async with anyio.create_task_group() as group:
            for n in range(1, 9):
                group.start_soon(one, n)
            await anyio.sleep(0.7)
            slow.set()

    with served(actor, max_batch=6) as url:
        anyio.run(all_clients, url)
    assert max(actor.batches) > 2 and sum(actor.batches) == 8
    for n, actions in found.items():
        assert actions[0][1] == np.float32(n / 100), "an instruction's action came back to its client"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"task_description": "go"}, "images is missing"),
        ({**look(), "images": {}}, "images is missing"),
        ({**look(), "images": {"front": np.zeros((32, 32, 3), np.uint8)}}, "no 'agentview'; it has: front"),
        ({**look(), "images": {"agentview": np.zeros((32, 32, 3), np.float32)}}, "float32 [32, 32, 3], wanted uint8"),
        ({**look(), "images": {"agentview": np.zeros((3, 32, 32), np.uint8)}}, "uint8 [3, 32, 32], wanted uint8"),
        ({**look(), "images": {"agentview": np.zeros((32, 32), np.uint8)}}, "[32, 32]"),
        ({**look(), "images": {"agentview": np.zeros((4, 4, 3), np.uint8)}}, "4 x 4, wanted sides"),
        ({**look(), "images": {"agentview": "a picture"}}, "is str, wanted an array"),
        ({**look(), "task_description": 7}, "task_description is missing"),
        ({**look(), "task_description": " "}, "task_description is missing"),
        ({**look(), "task_description": "x" * 2000}, "has 2000 letters"),
        ({**look(), "states": np.array([0.0, np.nan])}, "states holds values that are no numbers"),
        ({**look(), "deep": {"er": float("inf")}}, "observation.deep.er is inf"),
    ],
)
def test_a_bad_observation_is_answered_and_the_next_is_played(actor, bad, words):
    async def both(url):
        async with Connection(url) as client:
            await client.connect(benchmark=BENCHMARK)
            await client.start_episode({"task": {}})
            with pytest.raises(RuntimeError) as refused:
                await client.act(bad)
            return str(refused.value), (await client.act(look()))["actions"]

    with served(actor) as url:
        said, action = anyio.run(both, url)
    assert words in said
    assert action.shape == (7,) and actor.batches == [1]


BROKEN = {
    "text": "hello",
    "no msgpack": b"\xc1\xff\x00",
    "empty": b"",
    "a number": b"\x05",
    "no fields": pack_message(Message(MessageType.HELLO, {}))[:1] + b"",
    "unknown type": pack_message(Message(MessageType.HELLO, {})).replace(b"hello", b"howdy"),
    "payload is no mapping": pack_message(Message(MessageType.OBSERVATION, [1, 2])),
    "an array of objects": pack_message(Message(MessageType.OBSERVATION, {"a": np.zeros(2)})).replace(b"<f8", b"|O8"),
    "a shape that does not fit": pack_message(Message(MessageType.OBSERVATION, {"a": np.zeros(2)})).replace(
        b"\xa5shape\x91\x02", b"\xa5shape\x91\x03"
    ),
    "half a picture": pack_message(
        Message(
            MessageType.OBSERVATION, {"i": {"__image__": True, "format": "png", "data": b"\x89PNG\r\n", "shape": []}}
        )
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_message_is_answered_and_the_connection_goes_on(actor, name):
    async def both(url):
        async with websockets.connect(url) as socket:
            await socket.send(BROKEN[name])
            said = unpack_message(await socket.recv())
            await socket.send(pack_message(Message(MessageType.HELLO, {}, 3)))
            return said, unpack_message(await socket.recv())

    with served(actor) as url:
        said, hello = anyio.run(both, url)
    assert said.type == MessageType.ERROR and "message" in said.payload["error"]
    assert hello.type == MessageType.HELLO and hello.seq == 3


def test_a_large_message_ends_its_connection_only(actor):
    async def too_large(url):
        async with websockets.connect(url) as socket:
            await socket.send(b"\0" * 2_000_000)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                await socket.recv()
            return closed.value.rcvd.code

    with served(actor) as url:
        assert anyio.run(too_large, url) == 1009
        _, actions = anyio.run(played, url, [look()])
    assert actions[0].shape == (7,)


def test_a_small_file_with_a_huge_picture_is_refused(actor):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    bomb = {"__image__": True, "format": "png", "data": file.getvalue(), "shape": [1]}

    async def sent(url):
        async with websockets.connect(url) as socket:
            await socket.send(pack_message(Message(MessageType.OBSERVATION, {"images": {"agentview": bomb}}, 2)))
            return unpack_message(await socket.recv())

    assert len(file.getvalue()) < 2**20
    with served(actor) as url:
        said = anyio.run(sent, url)
    assert said.type == MessageType.ERROR and "exceeds limit" in said.payload["error"]


def test_other_specs_stop_the_run_before_its_first_episode(actor, narrow):
    async def hello(url, benchmark):
        client = Connection(url)
        try:
            await client.connect(benchmark=benchmark)
        finally:
            await client.close()

    with served(narrow) as url:
        with pytest.raises(RuntimeError, match="Expected HELLO reply"):
            anyio.run(hello, url, BENCHMARK)
        anyio.run(hello, url, None)
    with served(actor, evaluation=LIBERO) as url:
        anyio.run(hello, url, BENCHMARK)
        with pytest.raises(RuntimeError, match="Expected HELLO reply"):
            anyio.run(hello, url, "vla_eval.benchmarks.calvin.benchmark:CALVINBenchmark")
    with pytest.raises(StageError, match=r"gripper_closed: 1 against -1.*--convert converts them"):
        Player(narrow, evaluation=LIBERO)
    with pytest.raises(StageError, match="write a protocol"):
        Player(actor).evaluation_for("my.package:Benchmark")


def test_actions_are_converted_only_where_asked(narrow):
    with served(narrow, evaluation=LIBERO, convert=True) as url:
        _, actions = anyio.run(played, url, [look()])
    assert actions[0][6] == -1 and actions[0][1] == np.float32(0.07)
    calvin = open_protocol("calvin-abc-d")
    relative = Plain(spec=_relative())
    with pytest.raises(StageError, match="--convert converts them"):
        Player(relative, evaluation=calvin)
    with served(relative, evaluation=calvin, convert=True, camera="agentview") as url:
        _, actions = anyio.run(partial(played, benchmark=calvin.classes[0]), url, [look(255, text="x" * 40)])
    # CALVIN's numbers are 50 and 20 times metres and radians; what it holds at 1 is an open gripper there.
    assert actions[0] == pytest.approx(
        [0.02 * np.mean(_white()) / 255, 0.4 * 0.02, 0, 0.05 * 10 / 255, 0, 0, 1], abs=2e-4
    )


def _white():
    frame = np.full((32, 32, 3), 255, np.uint8)
    frame[0, 0] = 10
    return frame


def _relative():
    from embodied_midtrain.robots.known import KNOWN

    return KNOWN["calvin"]


def test_a_restart_within_an_episode_drops_what_is_left(actor):
    with served(actor) as url:
        _, actions = anyio.run(played, url, [look(), look(200, episode_restart=True), look()])
    assert np.allclose([a[2] for a in actions], [0, 0, 0.1]) and actor.batches == [1, 1]


def test_a_failing_policy_is_told_to_its_client_and_serves_on(actor):
    class Failing(Plain):
        def act(self, frames, instructions):
            if "fail" in instructions:
                raise ZeroDivisionError("inside")
            if "diverge" in instructions:
                return np.full((len(frames), 4, 7), np.nan, np.float32)
            return super().act(frames, instructions)

    async def three(url):
        async with Connection(url) as client:
            await client.start_episode({})
            for text in ("fail", "diverge"):
                with pytest.raises(RuntimeError, match=r"the policy failed: (ZeroDivisionError|StageError)"):
                    await client.act(look(text=text))
            return (await client.act(look()))["actions"]

    with served(Failing()) as url:
        assert anyio.run(three, url).shape == (7,)


def test_an_observation_needs_an_episode(actor):
    async def early(url):
        async with Connection(url) as client:
            with pytest.raises(RuntimeError, match="episode_start first"):
                await client.act(look())

    with served(actor) as url:
        anyio.run(early, url)


def test_the_gripper_opens_after_two_in_a_row():
    bridge = open_protocol("simpler-bridge")
    gripper = Gripper(bridge.spec, bridge.settings.opens_after)
    wanted = [1, 0, 1, 0, 1, 1, 1, 0, 0, 1]
    held = [gripper(np.array([0] * 6 + [value], np.float32))[6] for value in wanted]
    assert held == [1, 0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_its_own_smoke_episode_passes(actor):
    """What `vla-eval test` runs against a model server: its stub benchmark with its own runner."""
    task = {"name": "smoke_test"}
    benchmark = smoke._make_stub_benchmark(task)

    async def episode(url):
        async with Connection(url) as client:
            return await SyncEpisodeRunner().run_episode(benchmark, task, client, max_steps=50)

    with served(actor, camera="agentview") as url:
        result = anyio.run(episode, url)
    assert result["metrics"]["success"] and result["steps"] == 3
