"""vla-eval's own smoke check of a model server: `vla-eval test -c`, which starts it and plays its stub benchmark."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from embodied_midtrain.policies.finetune import FinetuneConfig, finetune
from embodied_midtrain.serving import script
from tests.policies.test_finetune import SMALL
from tests.tiny import Dots, backbone


def test_its_options_are_ours():
    given = ["--args.policy=a/b", "--args.max_batch=8", "--args.convert=true", "--args.verbose=false", "--port=8001"]
    assert script.options(given) == ["a/b", "--max-batch", "8", "--convert", "--port", "8001"]
    assert script.options(["--address", "0.0.0.0:9"]) == ["--host", "0.0.0.0", "--port", "9"]
    with pytest.raises(ValueError, match="cannot understand"):
        script.options(["policy"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="vla-eval starts servers with uv")
def test_vla_evals_smoke_check_passes(tmp_path):
    finetune(tmp_path / "policy", FinetuneConfig(**SMALL), backbone=backbone("compact"), demos=Dots())
    config = tmp_path / "server.yaml"
    arguments = {"policy": str(tmp_path / "policy"), "camera": "agentview"}
    config.write_text(yaml.safe_dump({"script": script.__file__, "args": arguments}))
    # uv runs in the environment that is active, and makes none of its own.
    environment = {**os.environ, "UV_NO_PROJECT": "1", "UV_PYTHON": sys.executable, "UV_NO_SYNC": "1"}
    words = [sys.executable, "-m", "vla_eval.cli.main", "test", "-c", str(config)]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "server/server: 3 steps, success=True" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
