"""Software rendering: what comes out is a picture, and where none can, the message says what to install."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("mujoco")

from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.simulation.rendering import (
    RENDERING_PACKAGES,
    SceneRenderer,
    prepare_mujoco,
    probe_rendering,
)

TWO_BALLS = """
<mujoco><worldbody><light pos="0 0 3" dir="0 0 -1"/>
<geom type="sphere" size=".1" pos="0 0 .5" rgba="1 0 0 1"/><geom type="sphere" size=".1" pos="0 0 -.5" rgba="0 0 1 1"/>
</worldbody></mujoco>
"""


def test_the_picture_is_upright():
    mujoco = prepare_mujoco()
    model = mujoco.MjModel.from_xml_string(TWO_BALLS)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with SceneRenderer(model, (64, 48), FreeCamera((0, 0, 0), 2.0, 90, 0)) as renderer:
        frame = renderer.render(data).astype(int)
    assert frame.shape == (64, 48, 3)
    rows_red = (frame[..., 0] > frame[..., 2] + 20).nonzero()[0]
    rows_blue = (frame[..., 2] > frame[..., 0] + 20).nonzero()[0]
    assert len(rows_red) and len(rows_blue)
    assert rows_red.max() < 32 < rows_blue.min(), "the ball that hangs higher is drawn higher"


def test_the_probe_draws_a_red_ball():
    middle = probe_rendering(64)[32, 32].astype(int)
    assert middle[0] > 60 and middle[0] > 2 * middle[1]


@pytest.mark.parametrize(
    "broken", [{"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/nowhere.json"}, {"MUJOCO_GL": "glfw"}]
)
def test_without_a_rendering_library_the_message_names_the_packages(broken):
    """No EGL vendor library, and a windowed back end without a display: both as on a bare machine."""
    code = (
        "from embodied_midtrain.artifacts import StageError\n"
        "from embodied_midtrain.simulation.rendering import probe_rendering\n"
        "try:\n    probe_rendering()\nexcept StageError as error:\n    print(error)\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**env, **broken}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    for package in RENDERING_PACKAGES:
        assert package in done.stdout
