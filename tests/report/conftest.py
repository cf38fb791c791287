"""One run, and one page drawn from it, for all tests of the report."""

from pathlib import Path

import pytest

from embodied_midtrain.report.page import PAGE, report

from .fixture import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    make_run(folder)
    return folder


@pytest.fixture(scope="session")
def page(run: Path) -> Path:
    return report(run / "report", run=run).file(PAGE)
