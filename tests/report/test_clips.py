"""Videos inside the page: small, fair, and playable."""

from __future__ import annotations

import io
from pathlib import Path

import av
import pytest

from embodied_midtrain.report.clips import clips, fair_order, small_mp4
from embodied_midtrain.report.summary import Video
from embodied_midtrain.report.tables import Unreadable

from .fixture import write_video


def frames(data: bytes) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(data)) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert video.streams.video[0].codec_context.pix_fmt == "yuv420p"
        return list(video.decode(video=0))


def test_a_video_becomes_small_and_stays_whole(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", frames=30, side=512)
    data, size = small_mp4(tmp_path / "v.mp4")
    assert size == (256, 256) and len(frames(data)) == 30
    assert small_mp4(tmp_path / "v.mp4")[0] == data


def test_a_long_rollout_is_played_faster_and_keeps_its_end(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", frames=1001, side=64)
    shown = frames(small_mp4(tmp_path / "v.mp4")[0])
    assert 300 <= len(shown) <= 400
    # The block is at the right at the end, at the left at the start.
    assert shown[-1].to_ndarray(format="rgb24")[40, 50, 0] != shown[0].to_ndarray(format="rgb24")[40, 50, 0]


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_what_is_no_video_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(Unreadable, match=r"v\.mp4 is not a readable video"):
        small_mp4(tmp_path / "v.mp4")


def test_one_of_each_kind_successes_first() -> None:
    videos = [Video(f"{v}{t}{i}", v, t, i % 2 == 0, i) for v in "ab" for t in "xy" for i in range(4)]
    assert [v.path for v in fair_order(videos)] == ["ax0", "ay0", "bx0", "by0", "ax1", "ay1", "bx1", "by1"]


def test_a_full_page_says_what_it_leaves_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", frames=20)
    one = len(small_mp4(tmp_path / "a.mp4")[0])
    found = clips(tmp_path, [Video(f"{n}.mp4", n, "reach", True) for n in "ab"], most_bytes=one + 10)
    assert [c.video.path for c in found.shown] == ["a.mp4"] and found.recorded == 2
    assert "b.mp4 and those after it are left out" in found.problems[0]
