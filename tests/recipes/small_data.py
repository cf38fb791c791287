"""A few megabytes of data as EmbodiedMidtrain's recipes expect them: eight sources, three robots, tiny models.

    python -m tests.recipes.small_data FOLDER [BRIDGE]

BRIDGE: a folder of real BridgeData V2 in RLDS (bridge_dataset/1.0.0), in place of made-up episodes.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from embodied_midtrain.benchmarks.protocol import Instructions
from embodied_midtrain.episodes import Episode
from embodied_midtrain.robots.hdf5 import ROBOSUITE_POSE
from tests import tiny
from tests.robots.test_hdf5 import write
from tests.robots.test_rlds import example, node, record, tensor
from tests.sources.test_webdataset import shard

PER_SOURCE = 20
MODELS = ("internvl", "qwen3_vl")
SIDE = 32


def picture(random: np.random.Generator, colour: tuple[int, int, int]) -> bytes:
    frame = np.clip(random.normal(colour, 20, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def pool(root: Path) -> None:
    """The eight sources, each in the files and fields that it is published in."""
    random = np.random.default_rng(0)
    for folder, of in (("laion400m", "a photo of"), ("cc12m", "a picture that shows")):
        members = []
        for n in range(PER_SOURCE):
            said = f"{of} thing {n}"
            facts = {"key": f"{n:09d}", "caption": said, "status": "success"}
            members += [(f"{n:09d}.png", picture(random, (200, 80, 10 * n)))]
            members += [(f"{n:09d}.txt", said.encode()), (f"{n:09d}.json", json.dumps(facts).encode())]
        shard(root / folder / "00000.tar", members)
    answers = {
        "llava": ("What is it?", "A bus number {n}."),
        "refspatial": ("Point to cup {n}.", "[(0.{n:03d}, 0.527)]"),
        "robopoint": ("Where is free space?", "[(0.461, 0.{n:03d}), (0.5, 0.52)]"),
    }
    names = {"llava": "llava_v1_5_mix665k", "refspatial": "2d", "robopoint": "robopoint_1432k"}
    for folder, (asked, answered) in answers.items():
        (root / folder / "images").mkdir(parents=True)
        rows = []
        for n in range(PER_SOURCE):
            (root / folder / "images" / f"{n}.png").write_bytes(picture(random, (60, 90, 12 * n)))
            human, gpt = (text.format(n=n) for text in (f"<image>\n{asked}", answered))
            turns = [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]
            rows.append({"id": f"{n:012d}", "image": f"{n}.png", "conversations": turns})
        (root / folder / f"{names[folder]}.json").write_text(json.dumps(rows))
    (root / "vcr/vcr1images").mkdir(parents=True)
    lines = []
    for n in range(PER_SOURCE):
        (root / "vcr/vcr1images" / f"{n}.png").write_bytes(picture(random, (20, 200, 12 * n)))
        row = {"objects": ["person", "chair"], "img_fn": f"{n}.png", "question": ["Why", "is", [0], "here", "?"]}
        row |= {"answer_choices": [["No", str(n)], [[0], "sits", "."]], "answer_label": 1, "annot_id": f"train-{n}"}
        lines.append(json.dumps(row))
    (root / "vcr/train.jsonl").write_text("\n".join(lines) + "\n")
    (root / "embspatial").mkdir()
    bench = [
        {
            "question_id": f"mp3d_{n}",
            "question": f"How are chair and table {n} positioned?",
            "answer_options": ["left", "right", "above", "below"],
            "answer": n % 4,
            "image": base64.b64encode(picture(random, (150, 150, 12 * n))).decode(),
        }
        for n in range(PER_SOURCE)
    ]
    (root / "embspatial/embspatial_bench.json").write_text(json.dumps(bench))
    (root / "robo2vlm").mkdir()
    table = [
        {
            "id": f"q{n}",
            "question": f"Which way does the robot go, {n}?",
            "choices": "['left', 'right', 'up']",
            "correct_answer": n % 3,
            "image": {"bytes": picture(random, (40, 40, 12 * n)), "path": f"{n}.png"},
        }
        for n in range(PER_SOURCE)
    ]
    pq.write_table(pa.Table.from_pylist(table), root / "robo2vlm/train-0.parquet")


def calvin(root: Path, episodes: int = 6, length: int = 8) -> None:
    random = np.random.default_rng(1)
    (root / "lang_annotations").mkdir(parents=True)
    for n in range(episodes * length):
        frame = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        actions = np.append(random.uniform(-1, 1, 6), 1 if n % length < 4 else -1)
        np.savez(root / f"episode_{n:07d}.npz", rgb_static=frame, rel_actions=actions)
    stretches = [(length * e, length * (e + 1) - 1) for e in range(episodes)]
    notes = {
        "language": {"ann": [f"turn on light {e}" for e in range(episodes)], "task": ["turn_on"] * episodes},
        "info": {"indx": stretches, "episodes": []},
    }
    np.save(root / "lang_annotations/auto_lang_ann.npy", notes)  # type: ignore[arg-type]


def bridge(root: Path, episodes: int = 6, length: int = 7) -> None:
    """Made-up episodes in BridgeData's RLDS."""
    random = np.random.default_rng(2)
    root.mkdir(parents=True)
    image = {"image": {"encodingFormat": "png"}}
    steps = node(observation=node(image_0=image), action=tensor(7), language_instruction={"text": {}})
    (root / "features.json").write_text(json.dumps(node(steps={"sequence": {"feature": steps}})))
    name = "bridge_dataset"
    info = {"name": name, "splits": [{"name": "train", "shardLengths": [str(episodes)]}]}
    (root / "dataset_info.json").write_text(json.dumps(info))
    records = []
    for e in range(episodes):
        actions = random.uniform(-0.02, 0.02, (length, 7)).astype(np.float32)
        actions[:, 6] = np.arange(length) < 3
        values: dict[str, Any] = {
            "steps/observation/image_0": [picture(random, (30 * t, 60, 20)) for t in range(length)],
            "steps/action": actions.ravel(),
            "steps/language_instruction": [f"put carrot {e} on plate".encode()] * length,
        }
        records.append(record(example(values)))
    (root / f"{name}-train.tfrecord-00000-of-00001").write_bytes(b"".join(records))


def libero(root: Path, episodes: int = 6, length: int = 9) -> None:
    random = np.random.default_rng(3)
    root.mkdir(parents=True)
    rows = []
    for e in range(episodes):
        actions = random.uniform(-1, 1, (length, 7)).astype(np.float32)
        actions[:, 6] = np.where(np.arange(length) < 4, -1, 1)
        frames = random.integers(0, 256, (length, SIDE, SIDE, 3), dtype=np.uint8)
        rows.append(Episode(f"e{e}", "stack", "stack the bowls", frames, actions))
    write(root / "KITCHEN_SCENE_stack_the_bowls_demo.hdf5", rows, ROBOSUITE_POSE)


def write_all(root: Path, real_bridge: Path | None = None) -> Path:
    """Everything below `root`, and a folder for each of `MODELS`."""
    pool(root)
    calvin(root / "calvin/task_ABC_D/training")
    if real_bridge is not None:
        shutil.copytree(real_bridge, root / "bridge_dataset/1.0.0")
    else:
        bridge(root / "bridge_dataset/1.0.0")
    libero(root / "libero_10")
    for kind in MODELS:
        shutil.copytree(tiny.folder(kind), root / "models" / kind)
    return root


class Stage:
    """A benchmark with LIBERO's actions that costs nothing: solved once the gripper has been closed often enough."""

    name = "stage"
    tasks = ("close", "open")
    spec = ROBOSUITE_POSE

    def horizon(self, task: str) -> int:
        return 12

    def instructions(self, task: str) -> Instructions:
        return Instructions((f"{task} the gripper",), (f"please {task} it",))

    def make(self, task: str, size: int) -> Scene:
        return Scene(task, size)


class Scene:
    def __init__(self, task: str, size: int) -> None:
        self.sign, self.size = (1.0 if task == "close" else -1.0), size

    def reset(self, state: int) -> None:
        self.state, self.held, self.steps = state, 0, 0

    def step(self, action: np.ndarray) -> bool:
        assert action.shape == (7,)
        self.steps += 1
        self.held += int(action[6] * self.sign > 0)
        return self.held > 3 + self.state % 5

    def frame(self) -> np.ndarray:
        return np.full((self.size, self.size, 3), (17 * self.state + 3 * self.steps) % 256, np.uint8)

    def expert(self) -> np.ndarray:
        return np.append(np.zeros(6), self.sign).astype(np.float32)

    def proprioception(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def start(self) -> bytes:
        return str(self.state).encode()

    def close(self) -> None:
        pass


if __name__ == "__main__":
    print(write_all(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
