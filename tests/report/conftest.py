"""One run, and one page drawn from it, for all tests of the report."""

from pathlib import Path

import pytest

from embodied_midtrain.report.page import PAGE, report
from embodied_midtrain.report.study_page import study_report

from .fixture import make_run
from .study_fixture import make_study


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    make_run(folder)
    return folder


@pytest.fixture(scope="session")
def page(run: Path) -> Path:
    return report(run / "report", run=run).file(PAGE)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "domains"
    make_study(folder)
    return folder


@pytest.fixture(scope="session")
def study_page(study: Path) -> Path:
    return study_report(study / "report", study=study).file(PAGE)
