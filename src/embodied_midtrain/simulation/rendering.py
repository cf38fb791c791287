"""Fast software rendering of MuJoCo scenes, on machines with no display and no GPU: colour and which geom is where.

MuJoCo's defaults (shadow maps of 4096², four samples a pixel, reflections) cost a software rasteriser most of its
time. Without them Mesa draws about ten times as many frames a second; `bench/demos.py` measures it.
"""

from __future__ import annotations

import atexit
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embodied_midtrain.artifacts import StageError
from embodied_midtrain.extras import require
from embodied_midtrain.simulation.camera import FreeCamera, Pinhole

RENDERING_PACKAGES = ("libegl1", "libgl1", "libgl1-mesa-dri")
"""What a bare Debian machine lacks (`apt-get install`)."""
MAX_GEOMS = 2_000
"""Room for the drawn parts of one scene; Meta-World's and LIBERO's have a few hundred."""


def prepare_mujoco() -> ModuleType:
    """MuJoCo, set to render off screen through EGL unless the user chose otherwise with MUJOCO_GL.

    Other packages (metaworld's gymnasium, robosuite) read the variable when they are imported: call this before.

    Raises:
        StageError: where MuJoCo is not installed, or its rendering libraries cannot be loaded.
    """
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        return require("mujoco", "sim")
    except StageError:
        raise
    except Exception as error:  # PyOpenGL fails in many ways (AttributeError among them) where a library is missing.
        raise _no_rendering(error) from error


def _context_class() -> Any:
    """The class of OpenGL context for the back end in force.

    MuJoCo chooses when it is first imported; where that happened before `prepare_mujoco`, it holds the windowed one.
    """
    if os.environ.get("MUJOCO_GL") == "egl":
        egl = require("mujoco.egl", "sim").GLContext
        # Its destructor reads this, also where the constructor failed: a second, meaningless traceback.
        if not hasattr(egl, "_context"):
            egl._context = None
        return egl
    return require("mujoco.gl_context", "sim").GLContext


def _no_rendering(error: BaseException) -> StageError:
    return StageError(
        f"MuJoCo cannot render here (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {error}). On Debian and Ubuntu: "
        f"apt-get install {' '.join(RENDERING_PACKAGES)}; then leave MUJOCO_GL unset, or set it to egl."
    )


class SceneRenderer:
    """Draws one model, upright, from `camera` unless a call gives another.

    Shadows, anti-aliasing and reflections are switched off in `model` itself, so make this before any other renderer
    of the same model.

    Raises:
        StageError: where no rendering context can be made; the message names the packages.
    """

    def __init__(self, model: Any, size: tuple[int, int], camera: FreeCamera | str) -> None:
        """`size` is (height, width); `camera` a free one or the name of one in the model."""
        mujoco = prepare_mujoco()
        height, width = size
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        # The off-screen buffer is as large as the model says, whatever part of it is read.
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        try:
            self._gl = _context_class()(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        except Exception as error:  # ImportError, RuntimeError, FatalError, by back end.
            raise _no_rendering(error) from error
        # A renderer left open would be freed after EGL itself at exit, and complain.
        atexit.register(self._gl.free)
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._mujoco, self._model = mujoco, model
        self._options, self._perturbation = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._camera = camera

    def render(self, data: Any, camera: FreeCamera | str | None = None) -> NDArray[np.uint8]:
        """The scene in the state `data` (an MjData of the same model): RGB [height, width, 3]."""
        return self._draw(data, camera)

    def segmentation(self, data: Any, camera: FreeCamera | str | None = None) -> NDArray[np.int32]:
        """The id of the geom seen at each pixel, -2 - id of a site, -1 where there is neither: [height, width]."""
        flags, colours = (
            self._scene.flags,
            (self._mujoco.mjtRndFlag.mjRND_SEGMENT, self._mujoco.mjtRndFlag.mjRND_IDCOLOR),
        )
        for flag in colours:
            flags[flag] = 1
        try:
            frame = self._draw(data, camera).astype(np.int32)
        finally:
            for flag in colours:
                flags[flag] = 0
        shown = np.full(self._scene.ngeom + 1, -1, np.int32)
        for drawn in self._scene.geoms[: self._scene.ngeom]:
            if drawn.segid >= 0 and drawn.objtype == self._mujoco.mjtObj.mjOBJ_GEOM:
                shown[drawn.segid + 1] = drawn.objid
            elif drawn.segid >= 0 and drawn.objtype == self._mujoco.mjtObj.mjOBJ_SITE:
                shown[drawn.segid + 1] = -2 - drawn.objid
        # MuJoCo writes the number of the drawn thing into the colour, 0 for none.
        return shown[frame @ np.array([1, 256, 65536], np.int32)]

    def pinhole(self, data: Any, camera: FreeCamera | str | None = None) -> Pinhole:
        """What geometry pictures of `data` have."""
        size, camera = (self._viewport.height, self._viewport.width), camera or self._camera
        if isinstance(camera, FreeCamera):
            return camera.pinhole(size)
        number = self._model.camera(camera).id
        # MuJoCo's cameras look along their negative z.
        right, up, back = data.cam_xmat[number].reshape(3, 3).T
        fovy, position = float(self._model.cam_fovy[number]), data.cam_xpos[number].copy()
        return Pinhole.of_fovy(fovy, size, position, np.stack([right, up, -back]))

    def _draw(self, data: Any, camera: FreeCamera | str | None) -> NDArray[np.uint8]:
        mujoco, camera = self._mujoco, camera or self._camera
        if isinstance(camera, FreeCamera):
            self._model.vis.global_.fovy = camera.fovy
        seen_from = _mujoco_camera(mujoco, self._model, camera)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._options, self._perturbation, seen_from, everything, self._scene)
        # Another renderer of this process may have been in use since.
        self._gl.make_current()
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        frame = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(frame, None, self._viewport, self._context)
        # OpenGL counts rows from the bottom.
        return np.ascontiguousarray(frame[::-1])

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()
        atexit.unregister(self._gl.free)

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _mujoco_camera(mujoco: ModuleType, model: Any, camera: FreeCamera | str) -> Any:
    made = mujoco.MjvCamera()
    if isinstance(camera, str):
        made.type, made.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
        return made
    made.type = mujoco.mjtCamera.mjCAMERA_FREE
    made.lookat[:] = camera.lookat
    made.distance, made.azimuth, made.elevation = camera.distance, camera.azimuth, camera.elevation
    return made


_PROBE = """
<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size=".3" rgba="1 0 0 1"/></worldbody></mujoco>
"""


def probe_rendering(size: int = 64) -> NDArray[np.uint8]:
    """One small frame of a red ball on black: whether this machine can render at all (`emt doctor`).

    Raises:
        StageError: where it cannot, naming the packages, or where the picture comes out empty.
    """
    mujoco = prepare_mujoco()
    model = mujoco.MjModel.from_xml_string(_PROBE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = FreeCamera(lookat=(0.0, 0.0, 0.0), distance=1.0, azimuth=90.0, elevation=-30.0)
    with SceneRenderer(model, (size, size), camera) as renderer:
        frame = renderer.render(data)
    if not frame.any():
        raise _no_rendering(RuntimeError("the picture is black"))
    return frame
