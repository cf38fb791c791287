"""Qt resource files: a small one written here byte by byte, and damaged ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resource_file import make_rcc

from embodied_midtrain.sources.registry.rcc import BadResource, read_rcc


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("compress", [False, True])
def test_files_come_with_path_and_content(version: int, compress: bool) -> None:
    files = {"cat.webp": b"meow" * 9, "dög.png": b""}
    blob = make_rcc(files, compress=compress, version=version)
    assert list(read_rcc(blob)) == [(f"pics/{name}", content) for name, content in files.items()]


@pytest.mark.parametrize("blob", [b"", b"PK\x03\x04" + bytes(40), make_rcc({"a": b"x"})[:-30], make_rcc({}, version=9)])
def test_damaged_files_are_refused(blob: bytes) -> None:
    with pytest.raises(BadResource):
        list(read_rcc(blob))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_damage_ends_in_an_error_or_in_files_and_never_runs_on(data: st.DataObject) -> None:
    blob = bytearray(make_rcc({"a": b"xyz", "b": b"12"}))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        files = list(read_rcc(bytes(blob)))
    except BadResource:
        return
    assert len(files) <= 100_000
