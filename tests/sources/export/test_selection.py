from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.sources.export.selection import Selection

from .pools import chosen


def test_lines_are_found_once_and_in_order() -> None:
    selection = chosen([("a", "1"), ("b", "1"), ("a", "1"), ("a", "x/ü"), ("a", "\0")])
    assert selection.take(("a", "2")) == [] and selection.take(("c", "1")) == []
    first, second = selection.take(("a", "1"))
    assert (first.copy, second.copy, first.facts["rank"], second.facts["rank"]) == (0, 1, 0, 2)
    assert selection.take(("a", "1")) == []
    assert selection.not_taken() == [("b", "1"), ("a", "x/ü"), ("a", "\0")]
    assert selection.by_source() == {"a": 4, "b": 1} and len(selection) == 5


def test_a_parquet_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"id": [7, 8], "source": ["a", "a"], "score": [float("nan"), 0.5], "more": [1, 2]}), path)
    selection = Selection.open(path)
    assert selection.take(("a", "7"))[0].facts == {} and selection.take(("a", "8"))[0].facts == {"score": 0.5}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": ["1"]}, "no column source"),
        ({"id": ["1", None], "source": ["a", "a"]}, "1 lines have no id"),
        ({"id": pa.array([], pa.string()), "source": pa.array([], pa.string())}, "no sample"),
    ],
)
def test_what_is_no_selection(tmp_path: Path, table: dict, message: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(StageError, match=message):
        Selection.open(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_text("not Parquet")
    with pytest.raises(StageError, match="is no selection"):
        Selection.open(tmp_path / "y.parquet")
    with pytest.raises(StageError, match="is not an artifact"):
        Selection.open(tmp_path)
