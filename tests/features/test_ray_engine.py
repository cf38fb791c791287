"""The Ray engine, in one Ray of two cores; skipped where Ray is not installed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.features.engines import EngineConfig, describe
from embodied_midtrain.features.extract import embed
from embodied_midtrain.features.extractor import EmbedConfig
from embodied_midtrain.features.ray_engine import connected, shares
from embodied_midtrain.samples import Picture
from tests import tiny
from tests.features.test_extract import Samples, picture

CONFIG = EmbedConfig(part_size=4, batch_size=3, precision="fp32")
TWO = EngineConfig(engine="ray", workers=2, threads=1)


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    module = pytest.importorskip("ray")
    with connected(module, "local"):
        yield module


def test_shares_of_a_cluster() -> None:
    auto = EngineConfig(engine="ray")
    assert shares({"CPU": 64}, 16, auto) == (16, 4, 0.0)
    assert shares({"CPU": 2}, 2, auto) == (1, 2, 0.0)
    assert shares({"CPU": 128, "GPU": 16}, 64, auto) == (16, 4, 1.0)
    assert shares({"CPU": 128, "GPU": 16}, 64, replace(auto, gpus=0.5, threads=2)) == (32, 2, 0.5)
    assert shares({"CPU": 8}, 8, replace(auto, workers=3, threads=1)) == (3, 1, 0.0)
    with pytest.raises(StageError, match="needs 4 cores and 1 GPUs, the cluster has 8 and 0"):
        shares({"CPU": 8}, 8, replace(auto, gpus=1))


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_tells_what_a_node_lacks(ray: ModuleType, tmp_path: Path) -> None:
    pool = Samples(30, broken=(5, 17))
    place = describe(str(tiny.folder("compact")))
    whole = embed(tmp_path / "alone", CONFIG, backbone=tiny.backbone("compact"), pool=pool)
    assert embed(tmp_path / "ray", CONFIG, backbone=place, pool=pool, engine=TWO).manifest == whole.manifest
    with pytest.raises(StageError, match=r"the node .* finds other weights"):
        embed(tmp_path / "other", CONFIG, backbone=replace(place, weights="0" * 16), pool=pool, engine=TWO)
    with pytest.raises(StageError, match=r"cannot read what this machine can \(.*3\.png.*\): paths must be reachable"):
        embed(tmp_path / "far", CONFIG, backbone=place, pool=Far(tmp_path, 6), engine=TWO)


class Here:
    """Bytes that only the process that made them can read, as a file on the driver's own disk."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data: bytes | None = data
        self.name = name

    def __getstate__(self) -> dict:
        return {"data": None, "name": self.name}

    def read(self) -> bytes:
        from embodied_midtrain.samples import BadSample

        if self.data is None:
            raise BadSample("unreadable image", f"/here/{self.name}: no such file")
        return self.data


class Far(Samples):
    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(count)
        self.rows[3] = replace(self.rows[3], pictures=(Picture(stored=Here(picture(3).read(), "3.png")),))


def test_an_address_where_nothing_answers(tmp_path: Path) -> None:
    module = pytest.importorskip("ray")
    if module.is_initialized():
        pytest.skip("a Ray is there already")
    with pytest.raises(StageError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"), connected(module, "127.0.0.1:1"):
        pass
