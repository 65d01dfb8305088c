"""The scene for CALVIN's task oracle, read from a physics world.

The oracle works with names, PyBullet with numbers; here the one becomes the other.
"""

from langsteer.calvin.tasks import BlockInfo, Contact, SceneInfo
from langsteer.envs.physics import Physics, link_ids
from langsteer.envs.playtable import PlayTable
from langsteer.envs.robot import Robot


class OracleView:
    """Takes snapshots of one world."""

    def __init__(self, physics: Physics, robot: Robot, table: PlayTable) -> None:
        self._physics, self._robot, self._table = physics, robot, table
        bodies = {
            "robot": robot.body,
            "pedestal": robot.pedestal,
            "table": table.table,
            "floor": table.floor,
            **table.blocks,
        }
        self._names: dict[tuple[int, int], Contact] = {
            (body, index): (name, link)
            for name, body in bodies.items()
            for link, index in link_ids(physics, body).items()
        }

    def snapshot(self) -> SceneInfo:
        """The scene at this moment."""
        slider, drawer, button, switch = self._table.joint_values()
        return SceneInfo(
            slider=slider,
            drawer=drawer,
            button=button,
            switch=switch,
            lightbulb=self._table.lightbulb.lit,
            led=self._table.led.lit,
            blocks={name: self._block(body) for name, body in self._table.blocks.items()},
            robot_contacts=self._contacts(self._robot.body),
        )

    def _block(self, body: int) -> BlockInfo:
        position, quaternion = self._physics.getBasePositionAndOrientation(body)
        linear, angular = self._physics.getBaseVelocity(body)
        return BlockInfo(position, quaternion, linear, angular, self._contacts(body))

    def _contacts(self, body: int) -> frozenset[Contact]:
        # Fields 2 and 4 of a contact are the other body and its link.
        points = self._physics.getContactPoints(bodyA=body)
        return frozenset(self._names[point[2], point[4]] for point in points)
