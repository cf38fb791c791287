"""Scores and selections as the page reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.report.tables import Unreadable, read_scores, to_csv


def write(path: Path, **columns: list) -> None:
    pq.write_table(pa.table(columns), path)


def test_scores_come_out_from_the_closest_with_percentiles(tmp_path: Path) -> None:
    write(tmp_path / "s.parquet", source=["a"] * 4, id=["1", "2", "3", "4"], score=[0.1, 0.9, 0.5, float("nan")])
    found = read_scores(tmp_path, "s.parquet")
    assert found.keys == [("a", "2"), ("a", "3"), ("a", "1")]
    assert found.percentile.tolist() == [100, 50, 0]


def test_equal_scores_share_a_percentile(tmp_path: Path) -> None:
    write(tmp_path / "s.parquet", source=["a"] * 4, id=list("1234"), score=[1.0, 0.5, 0.5, 0.0])
    assert np.allclose(read_scores(tmp_path, "s.parquet").percentile, [100, 50, 50, 0])


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    write(tmp_path / "s.parquet", source=["a"], id=["1"])
    with pytest.raises(Unreadable, match="lacks the column score"):
        read_scores(tmp_path, "s.parquet")
    write(tmp_path / "n.parquet", source=["a"], id=["1"], score=[float("nan")])
    with pytest.raises(Unreadable, match="no finite score"):
        read_scores(tmp_path, "n.parquet")


def test_no_cell_of_a_csv_is_a_formula() -> None:
    text = to_csv(("id", "score"), [("=HYPERLINK(1)", -0.5), ("@x", 1), ("a,b", 2)])
    assert text.splitlines() == ["id,score", "'=HYPERLINK(1),-0.5", "'@x,1", '"a,b",2']
