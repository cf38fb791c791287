"""MuJoCo chooses how it draws when it is first imported, and tests import it to see whether it is there."""

import os
import sys

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")
