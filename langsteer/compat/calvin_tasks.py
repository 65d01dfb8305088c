"""CALVIN's task oracle with calvin_env's own interface, on the dictionaries of ``get_info``.

Example::

    oracle = Tasks()
    start = env.get_info()
    _, _, _, info = env.step(action)
    oracle.get_task_info_for_set(start, info, {"open_drawer"})   # {"open_drawer"} once it is done
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langsteer.calvin.task import BLOCKS, TASKS, Task
from langsteer.calvin.tasks import (
    DRAWER_TRAVEL,
    LIFT_HEIGHTS,
    PUSH_DISTANCE,
    ROBOT,
    ROTATION_DEGREES,
    SLIDER_TRAVEL,
    SURFACE_LINKS,
    TABLE,
    BlockInfo,
    Contact,
    SceneInfo,
    achieved,
)
from langsteer.errors import UserError

Info = Mapping[str, Any]
"""The result of calvin_env's ``get_info``."""


class Tasks:
    """CALVIN's oracle.

    Args:
        tasks: of ``new_playtable_tasks.yaml``: task to its rule and the rule's numbers. They must
            equal those built in. None takes all 34 tasks.

    Attributes:
        tasks: names of the judged tasks.
        task_to_id: their numbers.
        id_to_task: the other way.

    Raises:
        UserError: an unknown task, or a rule with other numbers than CALVIN's.
    """

    def __init__(self, tasks: Mapping[str, Sequence[Any]] | None = None) -> None:
        for task, rule in (tasks or {}).items():
            _check_rule(task, rule)
        self.tasks = tuple(tasks or TASKS)
        self.task_to_id = {task: number for number, task in enumerate(self.tasks)}
        self.id_to_task = dict(enumerate(self.tasks))

    @property
    def num_tasks(self) -> int:
        """Number of judged tasks."""
        return len(self.tasks)

    def get_task_info(self, start_info: Info, end_info: Info) -> set[str]:
        """The tasks done between two moments."""
        return self.get_task_info_for_set(start_info, end_info, self.tasks)

    def get_task_info_for_set(
        self, start_info: Info, end_info: Info, task_filter: Collection[str]
    ) -> set[str]:
        """The tasks of ``task_filter`` done between two moments."""
        start, end = scene_info(start_info), scene_info(end_info)
        return {task for task in self.tasks if task in task_filter and achieved(start, end, task)}


def scene_info(info: Info) -> SceneInfo:
    """The snapshot for `langsteer.calvin.tasks`, from the result of ``get_info``.

    The doors are the slider and the drawer, in this order, as in every scene of CALVIN.
    """
    scene, robot = info["scene_info"], info["robot_info"]
    # The oracle judges by names; PyBullet's numbers differ from run to run.
    names = _names_of_contacts(info)
    slider, drawer = (door["current_state"] for door in scene["doors"].values())
    (button,), (switch,) = scene["buttons"].values(), scene["switches"].values()
    return SceneInfo(
        slider=slider,
        drawer=drawer,
        button=button["joint_state"],
        switch=switch["joint_state"],
        lightbulb=bool(scene["lights"]["lightbulb"]["logical_state"]),
        led=bool(scene["lights"]["led"]["logical_state"]),
        blocks={
            name: BlockInfo(
                block["current_pos"],
                block["current_orn"],
                block["current_lin_vel"],
                block["current_ang_vel"],
                _contacts(block, names),
            )
            for name, block in scene["movable_objects"].items()
        },
        robot_contacts=_contacts(robot, names),
    )


def _names_of_contacts(info: Info) -> dict[tuple[int, int], Contact]:
    """PyBullet's (body, link) to names, for the table's links: they give a block's place."""
    table = info["scene_info"]["fixed_objects"][TABLE]
    return (
        {(table["uid"], link): (TABLE, name) for name, link in table["links"].items()}
        | {
            (block["uid"], -1): (name, "base_link")
            for name, block in info["scene_info"]["movable_objects"].items()
        }
        | {(info["robot_info"]["uid"], -1): (ROBOT, "base_link")}
    )


def _contacts(part: Info, names: Mapping[tuple[int, int], Contact]) -> frozenset[Contact]:
    """The contacts of a part; fields 2 and 4 of a contact are the other body and its link."""
    # Links nobody asks about still tell their body, e.g. the robot's fingers.
    bodies = {body: name for (body, _), (name, _) in names.items()}
    found = ((point[2], point[4]) for point in part["contacts"])
    return frozenset(
        names.get(pair) or (bodies.get(pair[0], f"body {pair[0]}"), f"link {pair[1]}")
        for pair in found
    )


def _check_rule(task: str, rule: Sequence[Any]) -> None:
    found, expected = _plain(rule), _plain(_rule_of(Task.named(task)))
    if found != expected:
        raise UserError(
            f"task {task!r}: its rule is {found}, and this oracle judges by CALVIN's "
            f"{expected}; use calvin_env's own Tasks for other rules"
        )


def _plain(rule: Sequence[Any]) -> list[Any]:
    """Lists instead of the sequences of OmegaConf, for a comparison."""
    return [item if isinstance(item, str | int | float) else list(item) for item in rule]


def _rule_of(task: Task) -> list[Any]:
    """The entry of a task in ``new_playtable_tasks.yaml``."""
    doors = {"slider": "base__slide", "drawer": "base__drawer"}
    match task.verb:
        case "rotate":
            return ["rotate_object", task.block, _signed(ROTATION_DEGREES, task.side == "left")]
        case "push":
            return ["push_object", task.block, _signed(PUSH_DISTANCE, task.side == "right"), 0]
        case "lift":
            height, link = LIFT_HEIGHTS[task.surface], SURFACE_LINKS[task.surface]
            return ["lift_object", task.block, height, TABLE, link]
        case "turn_on" | "turn_off":
            before = int(task.verb == "turn_off")
            return ["toggle_light", task.about, before, 1 - before]
        case "move":
            travel = _signed(SLIDER_TRAVEL, task.side == "left")
            return ["move_door_rel", doors[task.about], travel]
        case "open" | "close":
            travel = _signed(DRAWER_TRAVEL, task.verb == "open")
            return ["move_door_rel", doors[task.about], travel]
        case "place":
            return ["place_object", TABLE, SURFACE_LINKS[task.surface]]
        case "stack" | "unstack":
            return [f"{task.verb}_objects"]
    links = (TABLE, SURFACE_LINKS["table"], TABLE, SURFACE_LINKS["drawer"])
    return ["push_object_into", list(BLOCKS), *links]


def _signed(value: float, positive: bool) -> float:
    return value if positive else -value
