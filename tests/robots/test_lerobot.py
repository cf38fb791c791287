"""LeRobot data sets: what our writer wrote, v2.1 as its description has it, exact frames, damaged ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import Skips, StageError
from embodied_midtrain.episodes import ActionSpec, BadEpisode, Episode
from embodied_midtrain.robots.export import IMAGE, ExportConfig, export_lerobot
from embodied_midtrain.robots.lerobot import LeRobotRobots
from embodied_midtrain.robots.opening import open_robots
from embodied_midtrain.robots.video import frames_at

SPEC = ActionSpec(("x", "gripper"), "delta", "world", "none", 1, 1, (-1.0, -1.0), (1.0, 1.0), 10.0)
SIDE = 32


def shade(episode: int, step: int) -> int:
    return 20 + 40 * episode + 5 * step


class Made:
    """Episodes whose frames say by their shade which they are."""

    name = "made"
    spec = SPEC

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths

    def __iter__(self) -> Any:
        for e, length in enumerate(self.lengths):
            frames = np.stack([np.full((SIDE, SIDE, 3), shade(e, t), np.uint8) for t in range(length)])
            actions = np.array([[e / 10, t / 100] for t in range(length)], np.float32)
            yield Episode(f"e{e}", "push", f"push number {e % 2}", frames, actions)

    def fingerprint(self) -> str:
        return "made"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    counts = export_lerobot(Made((7, 4, 5)), tmp_path / "made", ExportConfig(episodes_per_file=2))
    assert counts == {"episodes": 3, "frames": 16, "tasks": 2}
    return tmp_path / "made"


def check(robots: Any) -> None:
    episodes = list(robots)
    assert [len(e.frames) for e in episodes] == [7, 4, 5]
    for e, episode in enumerate(episodes):
        assert episode.instruction == f"push number {e % 2}"
        np.testing.assert_allclose(episode.actions, [[e / 10, t / 100] for t in range(len(episode.actions))], atol=1e-6)
        for t in (len(episode.frames) - 1, 0, 2):
            assert episode.frames[t].shape == (SIDE, SIDE, 3)
            assert abs(int(episode.frames[t].mean()) - shade(e, t)) <= 2, (e, t)
        assert [round(f.mean()) for f in episode.frames[::2]] == pytest.approx(
            [shade(e, t) for t in range(0, len(episode.frames), 2)], abs=2
        )


def test_what_is_written_is_read_frame_by_frame(written: Path) -> None:
    skips = Skips()
    robots = open_robots(written, skips)
    assert isinstance(robots, LeRobotRobots) and robots.spec == SPEC
    check(robots)
    assert not skips.rows


def test_the_tables_are_as_lerobot_describes_them(written: Path) -> None:
    info = json.loads((written / "meta/info.json").read_text())
    assert (info["codebase_version"], info["total_frames"], info["splits"]) == ("v3.0", 16, {"train": "0:3"})
    rows = pq.read_table(written / "data/chunk-000/file-001.parquet").to_pylist()
    assert [r["index"] for r in rows] == list(range(11, 16)) and {r["episode_index"] for r in rows} == {2}
    episodes = pq.read_table(written / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [e[f"videos/{IMAGE}/from_timestamp"] for e in episodes] == [0.0, 0.7, 0.0]
    assert [(e["dataset_from_index"], e["dataset_to_index"]) for e in episodes] == [(0, 7), (7, 11), (11, 16)]
    stats = json.loads((written / "meta/stats.json").read_text())
    actions = np.concatenate([e.actions for e in Made((7, 4, 5))])
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), atol=1e-6)
    assert np.shape(stats[IMAGE]["mean"]) == (3, 1, 1)
    pandas = pytest.importorskip("pandas")
    assert pandas.read_parquet(written / "meta/tasks.parquet").loc["push number 1"].task_index == 1


def v21(root: Path, *, video: bool) -> Path:
    """As version 2.1 has it: a table, and a video or images, for each episode."""
    made = list(Made((7, 4, 5)))
    feature = {
        "dtype": "video" if video else "image",
        "shape": [SIDE, SIDE, 3],
        "names": ["height", "width", "channel"],
    }
    info = {
        "codebase_version": "v2.1",
        "fps": 10,
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "gripper"]}},
            IMAGE: feature,
        },
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    lines = [{"episode_index": e, "tasks": [made[e].instruction], "length": len(made[e].actions)} for e in range(3)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "meta/tasks.jsonl").write_text(
        "\n".join(json.dumps({"task_index": n, "task": f"push number {n}"}) for n in range(2))
    )
    for e, episode in enumerate(made):
        table: dict[str, Any] = {
            "action": pa.array(episode.actions.tolist()),
            "timestamp": pa.array((np.arange(len(episode.actions)) / 10).astype(np.float32)),
            "task_index": [e % 2] * len(episode.actions),
        }
        names = {"episode_chunk": e // 2, "episode_index": e, "video_key": IMAGE}
        if video:
            export_lerobot(_One(episode), root / "tmp")
            path = root / info["video_path"].format(**names)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(next((root / "tmp").rglob("*.mp4")), path)
            shutil.rmtree(root / "tmp")
        else:
            from tests.sources.test_parquet import encoded

            table[IMAGE] = [{"bytes": encoded(frame), "path": None} for frame in episode.frames]
        path = root / info["data_path"].format(**names)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), path)
    return root


class _One:
    name, spec = "one", SPEC

    def __init__(self, episode: Episode) -> None:
        self.episode = episode

    def __iter__(self) -> Any:
        yield self.episode

    def fingerprint(self) -> str:
        return "one"


@pytest.mark.parametrize("video", [True, False])
def test_version_2_1(tmp_path: Path, video: bool) -> None:
    robots = open_robots(v21(tmp_path / "old", video=video), Skips())
    assert robots.spec.kind == "unknown" and robots.spec.names == ("x", "gripper")
    check(robots)


def test_a_spec_beside_the_data_says_what_actions_mean(tmp_path: Path) -> None:
    root = v21(tmp_path / "old", video=False)
    before = open_robots(root, Skips()).fingerprint()
    (root / "action_spec.json").write_text(json.dumps(SPEC.to_json()))
    robots = open_robots(root, Skips())
    assert robots.spec == SPEC and robots.fingerprint() != before
    (root / "action_spec.json").write_text('{"names": ["x"]}')
    with pytest.raises(StageError, match="no action spec"):
        open_robots(root, Skips())


def test_a_time_between_frames_is_no_frame(written: Path) -> None:
    video = written / f"videos/{IMAGE}/chunk-000/file-000.mp4"
    assert frames_at(video, [1.0, 0.0], 0.01).shape == (2, SIDE, SIDE, 3)
    with pytest.raises(BadEpisode, match="no frame at this time"):
        frames_at(video, [0.05], 0.01)
    with pytest.raises(BadEpisode, match="video too short"):
        frames_at(video, [0.0, 9.0], 0.01)
    for never in (float("inf"), float("nan"), 1e300):
        with pytest.raises(BadEpisode, match=r"broken video|video too short"):
            frames_at(video, [never], 0.01)


def tables(root: Path) -> list[Path]:
    return sorted((root / "data").rglob("*.parquet"))


def change(path: Path, **columns: Any) -> None:
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda root: tables(root)[1].write_bytes(b"PAR1"), "broken table"),
        (lambda root: tables(root)[1].unlink(), "missing table"),
        (lambda root: change(tables(root)[1], timestamp=np.float32([0, 0.2, 0.1, 0.3])), "time goes back"),
        (lambda root: change(tables(root)[1], action=[[1.0], [1.0, 2.0], [1.0], [1.0]]), "bad actions"),
        (lambda root: change(tables(root)[1], action=[[1.0, float("nan")]] * 4), "nan action"),
        (lambda root: pq.write_table(pq.read_table(tables(root)[1]).slice(0, 3), tables(root)[1]), "uneven"),
    ],
)
def test_a_damaged_episode_costs_only_itself(tmp_path: Path, damage: Any, reason: str) -> None:
    root = v21(tmp_path / "old", video=False)
    damage(root)
    skips = Skips()
    robots = open_robots(root, skips)
    assert [e.id for e in robots] == ["000000", "000002"] == [e.id for e in robots]
    assert [(r["reason"], r["where"]) for r in skips.rows] == [(reason, "old episode 1")]


def test_a_damaged_video_is_found_when_it_is_looked_at(tmp_path: Path) -> None:
    root = v21(tmp_path / "old", video=True)
    video = sorted(root.rglob("*.mp4"))[1]
    video.write_bytes(video.read_bytes()[:300])
    episodes = list(open_robots(root, Skips()))
    with pytest.raises(BadEpisode, match="broken video"):
        episodes[1].frames[0]
    # The first episode has 7 rows; 4 frames are what the second one's video has.
    shutil.copy(sorted(root.rglob("*.mp4"))[2], sorted(root.rglob("*.mp4"))[0])
    assert episodes[0].frames[:5].shape == (5, SIDE, SIDE, 3)
    with pytest.raises(BadEpisode, match="video too short"):
        episodes[0].frames[:]
    video.unlink()
    with pytest.raises(BadEpisode, match="missing video"):
        episodes[1].frames[0]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"codebase_version": "v1.6"}, "versions 2 and 3 are read"),
        ({"features": {"action": {"shape": [10**12]}, IMAGE: {"dtype": "image", "shape": [8, 8, 3]}}}, "can be meant"),
        ({"features": {}}, "lacks what a LeRobot data set needs"),
        ({"data_path": "../../{episode_index}.parquet"}, "leads out of the data set"),
        ({"data_path": "{nothing}"}, "cannot be filled in"),
    ],
)
def test_what_is_no_such_data_set_is_refused(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    root = v21(tmp_path / "old", video=False)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, **facts}))
    with pytest.raises(StageError, match=message):
        list(open_robots(root, Skips()))


def test_a_camera_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no camera wrist among observation\.images\.main"):
        open_robots(v21(tmp_path / "old", video=False), Skips(), camera="wrist")


def test_a_folder_that_is_there_is_not_written_over(written: Path) -> None:
    with pytest.raises(StageError, match="is there already"):
        export_lerobot(Made((1,)), written)
