"""Does a calibration fit the pictures? Compared with what they show of the gripper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from embodied_midtrain.coupled.trace import Trace, View
from embodied_midtrain.extras import require
from embodied_midtrain.simulation.truth import FINGERS, NOTHING

CLOSE = 0.02
"""What a right calibration keeps, part of the picture's longer side."""
MISMATCH = 0.025
"""A median offset beyond this says that the calibration is not that of the pictures."""
OUTSIDE = 1.0
"""The offset where fingers are seen that the calibration has outside the picture."""
LEAST_PIXELS = 12
"""Of the fingers; looks that show fewer say nothing."""

JUDGED = 8
"""Looks of an episode that are enough to judge its calibration by."""

PAIRS = 24
"""Pairs of pictures, at most, in which motion is looked for."""
LEAST_WAY = 0.03
"""Between them the projected gripper moves at least this far, part of the picture's longer side."""
WINDOW = 0.1
"""Side of the window around the gripper in which change is counted, part of the longer side."""
AWAY = 0.15
"""Places to compare with are at least this far from where the gripper should be."""
RANK = 0.85
"""A right calibration has more change at the gripper than at this part of all other places."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How well projected fingers fit their masks, in one camera.

    Attributes:
        offsets: distances of the centres, part of the picture's longer side, one a look that could be judged.
        covered: looks that hardly show the fingers.
    """

    offsets: tuple[float, ...]
    covered: int

    @property
    def median(self) -> float | None:
        return float(np.median(self.offsets)) if self.offsets else None


def fits(trace: Trace, view: View) -> bool | None:
    """Whether the calibration is that of the pictures; None where that cannot be said.

    By the fingers' masks where there are any (`finger_fit`), else by motion (`motion_rank`).
    """
    fit = finger_fit(trace, view, JUDGED)
    if fit is not None:
        return None if fit.median is None else fit.median <= MISMATCH
    rank = motion_rank(trace, view)
    return None if rank is None else rank >= RANK


def finger_fit(trace: Trace, view: View, most: int | None = None) -> Fit | None:
    """The fingers' outline as the calibration has it against their mask; None where either is not known.

    The outline is that of each finger's projected points, cut off at the picture's edges as the mask is, less what
    the picture shows other things at; its middle is the middle of the pixels in it. `most`: looks that are taken, even
    over the episode; all by default.
    """
    if trace.fingers is None or view.cameras is None or view.seen is None:
        return None
    count = len(trace.looks)
    looks = np.unique(np.linspace(0, count - 1, min(count, most or count)).round().astype(int))
    found = list(_offsets(trace, view, looks.tolist()))
    offsets = tuple(offset for offset in found if offset is not None)
    return Fit(offsets, len(found) - len(offsets))


def _offsets(trace: Trace, view: View, looks: Sequence[int]) -> Iterator[float | None]:
    assert trace.fingers is not None and view.seen is not None
    for look in looks:
        mask = view.seen[look] == FINGERS
        if mask.sum() < LEAST_PIXELS:
            yield None
            continue
        outline = finger_outline(trace, view, look)
        if outline is None or not outline.any():
            yield OUTSIDE
            continue
        # Where the picture shows another thing, the fingers are behind it.
        free = outline & (mask | (view.seen[look] == NOTHING))
        middles = [np.argwhere(where).mean(0) for where in (free if 2 * free.sum() > mask.sum() else outline, mask)]
        yield float(np.linalg.norm(middles[0] - middles[1])) / max(view.size)


def finger_outline(trace: Trace, view: View, look: int) -> NDArray[np.bool_] | None:
    """The pixels within the outlines of the fingers; None where a part of them is behind the camera."""
    assert trace.fingers is not None and view.cameras is not None
    height, width = view.size
    drawn = Image.new("L", (width, height))
    for finger in trace.fingers[look]:
        seen = view.cameras[look].project(finger)
        if seen[:, 2].min() <= 0.005:
            return None
        hull = require("scipy.spatial", "data").ConvexHull(seen[:, :2], qhull_options="QJ")
        # Pixel n of the drawing covers n to n + 1.
        ImageDraw.Draw(drawn).polygon([(x - 0.5, y - 0.5) for x, y in seen[hull.vertices, :2].tolist()], fill=1)
    return np.asarray(drawn) > 0


def motion_rank(trace: Trace, view: View) -> float | None:
    """Where the pictures change, against where the calibration has the gripper move.

    The change between two looks, in a window around the projected gripper, is compared with that in windows displaced
    all over the picture: the part of these in which less changes, over all pairs of looks. Near 1 where the
    calibration is right; by chance about a half, but an arm that covers much of the picture makes a wrong one look
    better than that. It tells swapped axes, mirrored pictures and another camera from the right one, no small errors;
    and nothing, where the camera moves or hardly anything else than the robot stands still.
    None where the gripper does not move in the picture, or is not in it.
    """
    if trace.place is None or (view.cameras is None and view.track is None):
        return None
    size = max(view.size)
    at = [view.hand(trace.place, look, trace.looks[look : look + 1]) for look in range(len(trace.looks))]
    found = np.concatenate([one for one in at if one is not None])
    seen = found[:, :2]
    ways = np.linalg.norm(np.diff(seen, axis=0), axis=1)
    inside: NDArray[np.bool_] = np.all((seen >= 0) & (seen < view.size[::-1]), axis=1) & (found[:, 2] > 0)
    pairs = np.nonzero((ways > LEAST_WAY * size) & inside[1:] & inside[:-1])[0]
    if len(pairs) < 2:
        # The gripper is not where the calibration has it, or it stands still.
        return 0.0 if len(trace.looks) > 2 and not inside.any() else None
    pairs = pairs[np.linspace(0, len(pairs) - 1, min(PAIRS, len(pairs))).astype(int)]
    looks = np.union1d(pairs, pairs + 1)
    pictures = dict(zip(looks.tolist(), view.frames[looks], strict=True))
    blur = require("scipy.ndimage", "data").uniform_filter
    ranks = []
    for n in pairs.tolist():
        before, after = (pictures[look].astype(np.float32).mean(-1) for look in (n, n + 1))
        change = blur(np.abs(after - before), size=max(3, round(WINDOW * size)), mode="constant")
        rows, columns = np.indices(change.shape)
        for x, y in (seen[n], seen[n + 1]):
            here = change[int(y), int(x)]
            others = change[np.hypot(columns - x, rows - y) > AWAY * size]
            ranks.append(float((others < here).mean()))
    return float(np.mean(ranks))
