"""What LIBERO's objects are called, what they are good for, and how they stand: the words of the scene sources.

Traits are three-valued: True, False, or None where people would not agree (is a plate a container?). A question is
asked only where nothing in the picture has the trait None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Grip = Literal["around", "rim", "handle"]
"""Where a gripper takes it: closing around its middle, on the rim, or on the handle."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of LIBERO's.

    Attributes:
        name: how it is called in questions, without article.
        kind: what it is counted as.
        colour: only where all of it has one plain colour.
        grip: None for what is not to be picked up.
        container: whether other things can be put into it.
        handle: whether it has a handle.
        folder: group of its assets; empty for what is used in LIBERO's own scenes only.
        lying: modelled lying down; a quarter turn about x stands it up.
    """

    name: str
    kind: str
    colour: str | None = None
    grip: Grip | None = "around"
    container: bool | None = False
    handle: bool | None = False
    folder: str = ""
    lying: bool = False


_HOPE, _SCANNED, _TURBO = "stable_hope_objects", "stable_scanned_objects", "turbosquid_objects"

# Names say what is to be seen: LIBERO's "black bowl" is white with a black pattern, its "yellow book" beige.
CATALOGUE: dict[str, Entry] = {
    "alphabet_soup": Entry("alphabet soup can", "can", folder=_HOPE, lying=True),
    "tomato_sauce": Entry("tomato sauce can", "can", folder=_HOPE, lying=True),
    "bbq_sauce": Entry("barbecue sauce bottle", "bottle", folder=_HOPE),
    "ketchup": Entry("ketchup bottle", "bottle", folder=_HOPE, lying=True),
    "salad_dressing": Entry("salad dressing bottle", "bottle", folder=_HOPE, lying=True),
    "new_salad_dressing": Entry("salad dressing bottle", "bottle"),
    "milk": Entry("milk carton", "carton", folder=_HOPE, lying=True),
    "orange_juice": Entry("orange juice carton", "carton", folder=_HOPE, lying=True),
    "butter": Entry("butter box", "box", folder=_HOPE),
    "cream_cheese": Entry("cream cheese box", "box", folder=_HOPE),
    "chocolate_pudding": Entry("chocolate pudding box", "box", folder=_HOPE),
    "cookies": Entry("cookie box", "box", folder=_HOPE),
    "popcorn": Entry("popcorn box", "box", folder=_HOPE),
    "macaroni_and_cheese": Entry("macaroni and cheese box", "box", folder=_HOPE),
    "akita_black_bowl": Entry("black and white bowl", "bowl", None, "rim", True, folder=_SCANNED),
    "white_bowl": Entry("white bowl", "bowl", "white", "rim", True, folder=_SCANNED),
    "glazed_rim_porcelain_ramekin": Entry("ramekin", "ramekin", None, "rim", True, folder=_SCANNED),
    "plate": Entry("plate", "plate", None, "rim", None, folder=_SCANNED),
    "basket": Entry("basket", "basket", None, "rim", True, None, folder=_SCANNED),
    "chefmate_8_frypan": Entry("frying pan", "pan", "black", "handle", None, True, folder=_SCANNED),
    "moka_pot": Entry("moka pot", "pot", None, "handle", None, True, folder=_TURBO),
    "porcelain_mug": Entry("white mug", "mug", "white", "handle", True, True, folder=_TURBO),
    "red_coffee_mug": Entry("red mug", "mug", None, "handle", True, True, folder=_TURBO),
    "white_yellow_mug": Entry("yellow and white mug", "mug", None, "handle", True, True, folder=_TURBO),
    "wine_bottle": Entry("wine bottle", "bottle", folder=_TURBO),
    "black_book": Entry("black book", "book", "black", folder=_TURBO),
    "yellow_book": Entry("beige book", "book", None, folder=_TURBO),
    "wooden_tray": Entry("wooden tray", "tray", None, "rim", True, None),
    "desk_caddy": Entry("desk caddy", "caddy", None, None, True),
    "wooden_two_layer_shelf": Entry("wooden shelf", "shelf", None, None, None),
    "wooden_cabinet": Entry("wooden cabinet", "cabinet", None, None, None, None),
    "white_cabinet": Entry("white cabinet", "cabinet", None, None, None, None),
    "flat_stove": Entry("stove", "stove", None, None, False, None),
    "microwave": Entry("microwave", "microwave", None, None, None, None),
}
"""By LIBERO's category, which is also the folder of the asset."""

COUNTED: dict[str, tuple[str, frozenset[str]]] = {
    "cube": ("cubes", frozenset({"box", "book"})),
    "ball": ("balls", frozenset()),
    "cylinder": ("cylinders", frozenset({"can", "bottle"})),
    "bowl": ("bowls", frozenset({"ramekin", "plate", "pan", "basket"})),
    "mug": ("mugs", frozenset({"ramekin"})),
    "bottle": ("bottles", frozenset()),
    "can": ("cans", frozenset({"cylinder"})),
    "carton": ("cartons", frozenset({"box"})),
    "box": ("boxes", frozenset({"carton", "cube", "book", "basket", "tray", "caddy"})),
    "book": ("books", frozenset({"box"})),
    "plate": ("plates", frozenset({"tray", "pan"})),
}
"""Kind -> its plural, and the kinds that someone might count along: with one of those in sight it is not asked."""
