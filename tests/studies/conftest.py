"""A toy study whose stages cost nothing, and its folder when it is done."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embodied_midtrain.studies.run import run_study
from embodied_midtrain.studies.stages import STAGES, kind_of
from embodied_midtrain.studies.study import Study
from tests.studies import fakes as fake
from tests.studies import toy


@pytest.fixture(scope="module")
def fakes() -> Iterator[None]:
    """Stages that cost nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name, where in fake.STAGES.items():
            patch.setitem(STAGES, name, where)
        kind_of.cache_clear()
        yield
    kind_of.cache_clear()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.data(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def whole(root: Path, fakes: None) -> tuple[Study, Path]:
    """A finished study; tests copy it."""
    study = toy.study(root)
    run_study(study, root / "whole", command="emt study toy.yaml")
    return study, root / "whole"
