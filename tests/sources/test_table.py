"""Samples in Parquet, there and back."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.samples import Picture, Region, Sample, Turn
from embodied_midtrain.sources.table import ROW_GROUP, SampleIndex, read_table, write_table


def make(count: int, source: str = "made") -> list[Sample]:
    point = Region("point", (0.25, 1.0))
    return [
        Sample(
            source,
            f"{i:04d}",
            tuple(Picture(data=f"{source}{i}/{k}".encode()) for k in range(i % 3)),
            (Turn("user", "Where is it?"), Turn("assistant", "At <region> – ünïcode.", (point,))),
            licence="CC0-1.0",
            origin=f"row {i}",
        )
        for i in range(count)
    ]


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    samples = make(2 * ROW_GROUP + 5)
    assert write_table(tmp_path / "a.parquet", iter(samples)) == len(samples)
    assert list(read_table(tmp_path / "a.parquet")) == samples
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", make(70))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_random_access_over_files_with_little_kept(tmp_path: Path) -> None:
    samples = [*make(150, "x"), *make(80, "y")]
    write_table(tmp_path / "x.parquet", samples[:150])
    write_table(tmp_path / "y.parquet", samples[150:])
    index = SampleIndex([tmp_path / "x.parquet", tmp_path / "y.parquet"], keep=1)
    assert len(index) == 230
    for sample in samples[::-17] + samples[::29]:
        assert index[sample.key] == sample
    assert ("x", "9999") not in index
    with pytest.raises(KeyError):
        index["z", "0000"]


def test_no_samples_is_a_table_too(tmp_path: Path) -> None:
    assert write_table(tmp_path / "a.parquet", []) == 0
    assert list(read_table(tmp_path / "a.parquet")) == []


def test_damaged_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(StageError, match="missing"):
        list(read_table(path))
    write_table(path, make(5))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StageError, match="damaged"):
        list(read_table(path))
    pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(StageError, match="no table of samples"):
        list(read_table(path))
