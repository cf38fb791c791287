"""What Meta-World's 50 tasks ask for, in words: Meta-World itself has no language.

Each task has a plain instruction. The usual ones have paraphrases by hand, others get theirs from patterns. Held-out
ones differ in words and order from every one that demonstrations use.
"""

from __future__ import annotations

from embodied_midtrain.benchmarks.protocol import Instructions

PLAIN: dict[str, str] = {
    "assembly-v3": "put the ring onto the peg",
    "basketball-v3": "put the ball into the basket",
    "bin-picking-v3": "move the green block from the left bin to the right bin",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the red button from above",
    "button-press-topdown-wall-v3": "press the red button behind the wall from above",
    "button-press-v3": "press the red button on the front of the box",
    "button-press-wall-v3": "go over the wall and press the red button",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial half a turn",
    "disassemble-v3": "lift the ring off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "turn the lock to lock the door",
    "door-open-v3": "open the door",
    "door-unlock-v3": "turn the lock to unlock the door",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "close the tap",
    "faucet-open-v3": "open the tap",
    "hammer-v3": "hit the nail with the hammer",
    "hand-insert-v3": "put the block into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "put the peg into the hole in the side of the box",
    "peg-unplug-side-v3": "pull the peg out of the box",
    "pick-out-of-hole-v3": "take the puck out of the hole",
    "pick-place-v3": "pick up the red cylinder and move it to the blue ball",
    "pick-place-wall-v3": "pick up the red cylinder and carry it over the wall to the blue ball",
    "plate-slide-back-side-v3": "slide the plate out of the goal to the side",
    "plate-slide-back-v3": "slide the plate back out of the goal",
    "plate-slide-side-v3": "slide the plate sideways into the goal",
    "plate-slide-v3": "slide the plate into the goal",
    "push-back-v3": "pull the block back to the green ball",
    "push-v3": "push the red cylinder to the green ball",
    "push-wall-v3": "push the red cylinder around the wall to the green ball",
    "reach-v3": "move the gripper to the red ball in the air",
    "reach-wall-v3": "move the gripper over the wall to the red ball",
    "shelf-place-v3": "put the block on the shelf",
    "soccer-v3": "push the football into the goal",
    "stick-pull-v3": "pull the thermos with the stick",
    "stick-push-v3": "push the thermos with the stick",
    "sweep-into-v3": "sweep the block into the hole",
    "sweep-v3": "sweep the block off the table",
    "window-close-v3": "close the window",
    "window-open-v3": "open the window",
}
MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
"""Meta-World's set of ten for multi-task learning; all tasks together are its MT50."""

# task: (more to train with, to hold out)
PARAPHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "reach-v3": (
        ("reach the floating red ball", "bring the hand to the red sphere"),
        ("touch the red sphere that hovers above the table", "go to where the red ball floats"),
    ),
    "push-v3": (
        ("shove the red cylinder over to the green ball", "slide the red puck to the green sphere"),
        ("make the red puck end up at the green ball", "move the red cylinder along the table to the green mark"),
    ),
    "pick-place-v3": (
        ("grasp the red puck and carry it to the blue sphere", "take the red cylinder to the blue ball"),
        ("lift the red puck up to the blue ball", "bring the red object to the place marked in blue"),
    ),
    "door-open-v3": (
        ("pull the door open by its handle", "swing the door open"),
        ("get the door to stand open", "grab the handle and open up the safe"),
    ),
    "door-close-v3": (("push the door shut", "swing the door closed"), ("shut the open door", "get the door closed")),
    "drawer-open-v3": (
        ("pull the drawer open", "slide the drawer out by its handle"),
        ("pull out the green drawer", "get the drawer to stand open"),
    ),
    "drawer-close-v3": (
        ("push the drawer shut", "slide the drawer back in"),
        ("shut the green drawer", "get the drawer closed"),
    ),
    "button-press-v3": (
        ("push the red button in", "press the button of the box"),
        ("poke the red button until it is in", "push the button that faces you"),
    ),
    "button-press-topdown-v3": (
        ("push the red button down", "press down on the red button"),
        ("lower the hand onto the red button", "push the button on top of the box"),
    ),
    "window-open-v3": (
        ("slide the window open", "push the window handle to open it"),
        ("get the window to stand open", "move the pane aside by its handle"),
    ),
    "window-close-v3": (
        ("slide the window shut", "push the window handle to close it"),
        ("shut the open window", "get the window closed by its handle"),
    ),
    "faucet-open-v3": (
        ("turn the tap on", "turn the handle of the tap to open it"),
        ("let the water run", "rotate the faucet handle until it is open"),
    ),
    "faucet-close-v3": (
        ("turn the tap off", "turn the handle of the tap to close it"),
        ("stop the water", "rotate the faucet handle until it is closed"),
    ),
    "handle-press-v3": (
        ("push the handle down", "press down on the red handle"),
        ("force the handle to its lowest position", "get the handle down"),
    ),
    "plate-slide-v3": (
        ("push the plate into the net", "shove the black plate into the goal"),
        ("score with the puck", "move the disc along the table into the net"),
    ),
    "coffee-button-v3": (
        ("push the button on the coffee machine", "start the coffee machine"),
        ("make the machine brew", "poke the button above the mug"),
    ),
}


def instructions_for(task: str) -> Instructions:
    """What the task asks for, to train with (the plain one first) and to hold out."""
    plain = PLAIN[task]
    training, held_out = PARAPHRASES.get(task, ((f"now {plain}", f"{plain}, please"), (f"the robot should {plain}",)))
    return Instructions((plain, *training), held_out)
