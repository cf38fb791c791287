"""The camera's geometry against what the renderer really draws."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

from embodied_midtrain.simulation.camera import FreeCamera
from embodied_midtrain.simulation.rendering import SceneRenderer, prepare_mujoco

BALL = """<mujoco><worldbody><light pos="0 0 3"/><geom name="floor" type="plane" size="3 3 .1" rgba=".4 .4 .4 1"/>
<body pos="{} {} {}"><geom name="ball" type="sphere" size=".03" rgba="1 0 0 1"/></body></worldbody></mujoco>"""
SIZE = (160, 200)


@pytest.mark.parametrize(
    ("where", "camera"),
    [
        ((0.1, -0.2, 0.03), FreeCamera((0, 0, 0.1), 1.2, 130, -30)),
        ((-0.2, 0.15, 0.3), FreeCamera((0.1, 0, 0.0), 1.0, -20, -75, fovy=60)),
        ((0.0, 0.15, 0.1), FreeCamera((0, 0, 0.2), 1.5, 0, -5, fovy=30)),
    ],
)
def test_a_projected_ball_is_where_it_is_drawn(where, camera):
    mujoco = prepare_mujoco()
    model = mujoco.MjModel.from_xml_string(BALL.format(*where))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with SceneRenderer(model, SIZE, camera) as renderer:
        mask = renderer.segmentation(data) == model.geom("ball").id
        picture = renderer.render(data).astype(int)
    x, y, depth = camera.project(np.array(where), SIZE)
    rows, columns = np.nonzero(mask)
    assert len(rows) > 20
    assert abs(columns.mean() + 0.5 - x) < 1 and abs(rows.mean() + 0.5 - y) < 1
    assert picture[mask][:, 0].mean() > 2 * picture[mask][:, 1].mean(), "red where the segmentation says ball"
    assert depth == pytest.approx((np.array(where) - camera.position) @ camera.axes[2])
