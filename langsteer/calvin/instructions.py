"""Words for each task: what a person may say to the robot.

Every task has several phrasings to train on and some held out, for the question whether words that
were never seen are understood. All are ours; none is one of CALVIN's sentences by design.

Example::

    >>> phrasings("open_drawer")[0]
    'open the drawer'
    >>> phrasings("lift_red_block_table", held_out=True)[0]
    'get the red cube off the table and into the air'
"""

from langsteer.calvin.tasks import COLOURS, checked_task

_Phrasings = tuple[tuple[str, ...], tuple[str, ...]]
"""(to train on, held out)"""

_COLOURED: dict[str, _Phrasings] = {
    "rotate_{colour}_block_right": (
        (
            "turn the {colour} block to the right",
            "rotate the {colour} block clockwise",
            "twist the {colour} block rightwards",
            "give the {colour} block a turn to the right",
            "spin the {colour} cube clockwise",
            "take hold of the {colour} block and twist it right",
            "turn the {colour} object a quarter turn to the right",
            "make the {colour} block face further right",
        ),
        (
            "swivel the {colour} cube towards the right",
            "could you turn the {colour} piece clockwise",
        ),
    ),
    "rotate_{colour}_block_left": (
        (
            "turn the {colour} block to the left",
            "rotate the {colour} block counterclockwise",
            "twist the {colour} block leftwards",
            "give the {colour} block a turn to the left",
            "spin the {colour} cube counterclockwise",
            "take hold of the {colour} block and twist it left",
            "turn the {colour} object a quarter turn to the left",
            "make the {colour} block face further left",
        ),
        (
            "swivel the {colour} cube towards the left",
            "could you turn the {colour} piece anticlockwise",
        ),
    ),
    "push_{colour}_block_right": (
        (
            "push the {colour} block to the right",
            "slide the {colour} block rightwards",
            "shove the {colour} cube over to the right",
            "move the {colour} block right along the surface",
            "nudge the {colour} object to the right side",
            "sweep the {colour} block right",
            "drive the {colour} block towards the right",
            "shift the {colour} block to the right without lifting it",
        ),
        (
            "the {colour} cube should slide further right",
            "scoot the {colour} piece over to the right-hand side",
        ),
    ),
    "push_{colour}_block_left": (
        (
            "push the {colour} block to the left",
            "slide the {colour} block leftwards",
            "shove the {colour} cube over to the left",
            "move the {colour} block left along the surface",
            "nudge the {colour} object to the left side",
            "sweep the {colour} block left",
            "drive the {colour} block towards the left",
            "shift the {colour} block to the left without lifting it",
        ),
        (
            "the {colour} cube should slide further left",
            "scoot the {colour} piece over to the left-hand side",
        ),
    ),
    "lift_{colour}_block_table": (
        (
            "lift the {colour} block from the table",
            "pick the {colour} block up off the table",
            "grab the {colour} cube on the table and raise it",
            "take the {colour} block from the table top",
            "raise the {colour} object from the table",
            "grip the {colour} block on the table and hold it up",
            "pick up the {colour} block that lies on the table",
            "fetch the {colour} block from the table surface",
        ),
        (
            "get the {colour} cube off the table and into the air",
            "hoist the {colour} piece up from the tabletop",
        ),
    ),
    "lift_{colour}_block_slider": (
        (
            "lift the {colour} block from the cabinet",
            "pick the {colour} block up inside the sliding cabinet",
            "grab the {colour} cube in the cabinet and raise it",
            "take the {colour} block out of the slider",
            "raise the {colour} object from the shelf behind the door",
            "grip the {colour} block in the slider and hold it up",
            "pick up the {colour} block that lies in the cabinet",
            "fetch the {colour} block from behind the sliding door",
        ),
        (
            "get the {colour} cube off the cabinet shelf and into the air",
            "hoist the {colour} piece up from the slider",
        ),
    ),
    "lift_{colour}_block_drawer": (
        (
            "lift the {colour} block from the drawer",
            "pick the {colour} block up out of the drawer",
            "grab the {colour} cube in the drawer and raise it",
            "take the {colour} block out of the open drawer",
            "raise the {colour} object from the bottom of the drawer",
            "grip the {colour} block in the drawer and hold it up",
            "pick up the {colour} block that lies in the drawer",
            "fetch the {colour} block from inside the drawer",
        ),
        (
            "get the {colour} cube out of the drawer and into the air",
            "hoist the {colour} piece up from the drawer",
        ),
    ),
}

_PLAIN: dict[str, _Phrasings] = {
    "move_slider_left": (
        (
            "slide the door to the left",
            "move the sliding door left",
            "shove the door over to the left side",
            "take the door handle and slide it left",
            "close the left half of the cabinet with the door",
            "bring the slider to the left end",
            "drag the sliding door leftwards",
            "shift the cabinet door to the left",
        ),
        ("the door should go all the way left", "uncover the right half of the cabinet"),
    ),
    "move_slider_right": (
        (
            "slide the door to the right",
            "move the sliding door right",
            "shove the door over to the right side",
            "take the door handle and slide it right",
            "close the right half of the cabinet with the door",
            "bring the slider to the right end",
            "drag the sliding door rightwards",
            "shift the cabinet door to the right",
        ),
        ("the door should go all the way right", "uncover the left half of the cabinet"),
    ),
    "open_drawer": (
        (
            "open the drawer",
            "pull the drawer out",
            "pull the drawer open by its handle",
            "slide the drawer towards you",
            "draw the drawer out of the table",
            "get the drawer open",
            "grab the drawer's handle and pull",
            "make the drawer stand open",
        ),
        ("I need to see what is inside the drawer", "tug the drawer outwards"),
    ),
    "close_drawer": (
        (
            "close the drawer",
            "push the drawer in",
            "push the drawer shut by its handle",
            "slide the drawer back into the table",
            "shut the drawer",
            "get the drawer closed",
            "press against the drawer until it is shut",
            "make the drawer disappear under the table",
        ),
        ("nobody should see what is inside the drawer", "shove the drawer inwards"),
    ),
    "place_in_slider": (
        (
            "put the block in the cabinet",
            "place what you hold in the slider",
            "set the held block down inside the cabinet",
            "lay the block on the shelf behind the door",
            "drop the object into the sliding cabinet",
            "put the grasped cube down in the slider",
            "leave the block in the cabinet",
            "deposit the object on the cabinet's shelf",
        ),
        ("that cube belongs behind the sliding door", "stow the piece away in the cabinet"),
    ),
    "place_in_drawer": (
        (
            "put the block in the drawer",
            "place what you hold in the drawer",
            "set the held block down inside the drawer",
            "lay the block on the bottom of the drawer",
            "drop the object into the drawer",
            "put the grasped cube down in the open drawer",
            "leave the block in the drawer",
            "deposit the object in the drawer",
        ),
        ("that cube belongs in the drawer", "stow the piece away in the drawer"),
    ),
    "stack_block": (
        (
            "stack the block on another one",
            "put the block you hold on top of another block",
            "set the held block down on a second block",
            "build a tower of two blocks",
            "place the cube on top of another cube",
            "pile the blocks up",
            "lay the object upon another block",
            "balance the block on one that lies on the table",
        ),
        ("make a little tower", "one cube should sit on the other"),
    ),
    "unstack_block": (
        (
            "take the upper block off the lower one",
            "unstack the blocks",
            "take the tower of blocks apart",
            "remove the block on top",
            "knock the top block off",
            "take down the stacked block",
            "get the upper cube off the pile",
            "separate the stacked blocks",
        ),
        ("no cube should sit on another", "undo the little tower"),
    ),
    "turn_on_lightbulb": (
        (
            "turn on the light bulb",
            "switch the bulb on",
            "move the switch up to light the bulb",
            "flip the switch so that the yellow light shines",
            "make the light bulb shine",
            "push the lever up to get light",
            "light up the yellow lamp with the switch",
            "put the switch into the on position",
        ),
        ("it is too dark, use the lever", "let the yellow lamp glow"),
    ),
    "turn_off_lightbulb": (
        (
            "turn off the light bulb",
            "switch the bulb off",
            "move the switch down to darken the bulb",
            "flip the switch so that the yellow light goes out",
            "make the light bulb go dark",
            "push the lever down to stop the light",
            "put out the yellow lamp with the switch",
            "put the switch into the off position",
        ),
        ("it is too bright, use the lever", "the yellow lamp should stop glowing"),
    ),
    "turn_on_led": (
        (
            "turn on the led",
            "press the button to light the led",
            "push the button so that the green light shines",
            "make the green light go on",
            "switch the green led on with the button",
            "hit the button to get green light",
            "light up the green lamp",
            "push down the button until the led is on",
        ),
        ("let the green lamp glow", "give the button a push, the led is dark"),
    ),
    "turn_off_led": (
        (
            "turn off the led",
            "press the button to darken the led",
            "push the button so that the green light goes out",
            "make the green light go off",
            "switch the green led off with the button",
            "hit the button to stop the green light",
            "put out the green lamp",
            "push down the button until the led is off",
        ),
        ("the green lamp should stop glowing", "give the button a push, the led is lit"),
    ),
    "push_into_drawer": (
        (
            "push the block into the drawer",
            "slide the block over the edge into the drawer",
            "sweep the object off the table into the drawer",
            "shove the block until it falls into the drawer",
            "let the block drop from the table into the drawer",
            "nudge the cube into the open drawer",
            "move the block along the table and into the drawer",
            "brush the object into the drawer",
        ),
        ("the cube should tumble into the drawer", "clear the block off the table into the drawer"),
    ),
}


def _for_all_tasks() -> dict[str, _Phrasings]:
    found = dict(_PLAIN)
    for template, groups in _COLOURED.items():
        for colour in COLOURS:
            seen, held_out = (
                tuple(phrase.format(colour=colour) for phrase in group) for group in groups
            )
            found[template.format(colour=colour)] = (seen, held_out)
    return found


_PHRASINGS = _for_all_tasks()


def phrasings(task: str, held_out: bool = False) -> tuple[str, ...]:
    """All phrasings of one of the 34 tasks: those to train on, or those held out.

    Raises:
        UserError: no task has this name.
    """
    return _PHRASINGS[checked_task(task)][int(held_out)]
