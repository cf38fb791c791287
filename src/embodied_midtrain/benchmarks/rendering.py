"""Moved to `embodied_midtrain.simulation.rendering` (sources need it too, and imports only point down)."""

from embodied_midtrain.simulation.camera import FreeCamera as FreeCamera
from embodied_midtrain.simulation.rendering import *  # noqa: F403
from embodied_midtrain.simulation.rendering import RENDERING_PACKAGES as RENDERING_PACKAGES
