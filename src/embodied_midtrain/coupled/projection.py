"""Does a calibration fit the pictures? Compared with what they show of the gripper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from embodied_midtrain.coupled.trace import Trace, View
from embodied_midtrain.extras import require
from embodied_midtrain.simulation.truth import FINGERS

CLOSE = 0.02
"""What a right calibration keeps, part of the picture's longer side."""
MISMATCH = 0.05
"""A median offset beyond this says that the calibration is not that of the pictures."""
UNCOVERED = 0.6
"""Looks at which less of the fingers' outline is seen as fingers say nothing: something else is in front."""
LEAST_PIXELS = 12


@dataclass(frozen=True, slots=True)
class Fit:
    """How well projected fingers fit their masks, in one camera.

    Attributes:
        offsets: distances of the centres, part of the picture's longer side, one a look that could be judged.
        covered: looks at which the fingers are hidden, or outside.
    """

    offsets: tuple[float, ...]
    covered: int

    @property
    def median(self) -> float | None:
        return float(np.median(self.offsets)) if self.offsets else None


def finger_fit(trace: Trace, view: View) -> Fit | None:
    """The fingers' outline as the calibration has it against their mask; None where either is not known.

    The outline is that of each finger's projected points, cut off at the picture's edges as the mask is; its middle
    is the middle of the pixels in it.
    """
    if trace.fingers is None or view.cameras is None or view.seen is None:
        return None
    found = list(_offsets(trace, view))
    offsets = tuple(offset for offset in found if offset is not None)
    return Fit(offsets, len(found) - len(offsets))


def _offsets(trace: Trace, view: View) -> Iterator[float | None]:
    assert trace.fingers is not None and view.seen is not None
    for look in range(len(trace.looks)):
        outline, mask = finger_outline(trace, view, look), view.seen[look] == FINGERS
        if outline is None or min(outline.sum(), mask.sum()) < LEAST_PIXELS or mask.sum() < UNCOVERED * outline.sum():
            yield None
        else:
            middles = [np.argwhere(where).mean(0) for where in (outline, mask)]
            yield float(np.linalg.norm(middles[0] - middles[1])) / max(view.size)


def finger_outline(trace: Trace, view: View, look: int) -> NDArray[np.bool_] | None:
    """The pixels within the outlines of the fingers; None where a part of them is behind the camera."""
    assert trace.fingers is not None and view.cameras is not None
    height, width = view.size
    drawn = Image.new("1", (width, height))
    for finger in trace.fingers[look]:
        seen = view.cameras[look].project(finger)
        if seen[:, 2].min() <= 0.005:
            return None
        hull = require("scipy.spatial", "data").ConvexHull(seen[:, :2], qhull_options="QJ")
        # Pixel n of the drawing covers n to n + 1.
        ImageDraw.Draw(drawn).polygon([(x - 0.5, y - 0.5) for x, y in seen[hull.vertices, :2].tolist()], fill=1)
    return np.asarray(drawn, bool)


def fits(trace: Trace, view: View) -> bool | None:
    """Whether the calibration is that of the pictures; None where that cannot be said."""
    fit = finger_fit(trace, view)
    if fit is None or fit.median is None:
        return None
    return fit.median <= MISMATCH
