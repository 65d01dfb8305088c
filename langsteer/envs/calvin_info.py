"""The scene as ``get_info`` of calvin_env tells it: nested dictionaries with PyBullet's numbers.

Code for calvin_env reads contacts, poses and joint values from them. So does the task oracle in
`langsteer.compat.calvin_tasks`.
"""

from langsteer.envs.physics import Physics, link_ids, pybullet
from langsteer.envs.playtable import Light, PlayTable
from langsteer.envs.robot import Robot


def calvin_info(physics: Physics, robot: Robot, table: PlayTable) -> dict[str, object]:
    """``robot_info`` and ``scene_info`` with calvin_env's keys, at this moment.

    Contacts are the tuples of PyBullet's ``getContactPoints``: fields 2 and 4 are the other body
    and its link.
    """
    return {"robot_info": _robot_info(physics, robot), "scene_info": _scene_info(physics, table)}


def _robot_info(physics: Physics, robot: Robot) -> dict[str, object]:
    state = robot.observe()
    position, quaternion = robot.link_pose(robot.links["tcp"])
    return {
        "tcp_pos": position,
        "tcp_orn": pybullet.getEulerFromQuaternion(quaternion),
        "gripper_opening_width": state[6],
        "arm_joint_states": state[7:14].tolist(),
        "gripper_action": int(robot.gripper_action),
        "uid": robot.body,
        "contacts": physics.getContactPoints(bodyA=robot.body),
    }


def _scene_info(physics: Physics, table: PlayTable) -> dict[str, object]:
    slider, drawer, button, switch = table.joint_values()
    config = table.config
    fixed = {"uid": table.table, "links": link_ids(physics, table.table) | {"base_link": -1}}
    return {
        "fixed_objects": {
            "table": fixed | {"contacts": physics.getContactPoints(bodyA=table.table)}
        },
        "movable_objects": {
            name: _block_info(physics, body) for name, body in table.blocks.items()
        },
        "doors": {
            config.slider_joint: {"current_state": slider},
            config.drawer_joint: {"current_state": drawer},
        },
        "buttons": {
            config.button_joint: {
                "joint_state": button,
                "logical_state": int(table.button_logic.is_on),
            }
        },
        "switches": {
            config.switch_joint: {
                "joint_state": switch,
                "logical_state": int(table.switch_logic.is_on),
            }
        },
        "lights": {"lightbulb": _light_info(table.lightbulb), "led": _light_info(table.led)},
    }


def _block_info(physics: Physics, body: int) -> dict[str, object]:
    position, quaternion = physics.getBasePositionAndOrientation(body)
    linear, angular = physics.getBaseVelocity(body)
    return {
        "current_pos": position,
        "current_orn": quaternion,
        "current_lin_vel": linear,
        "current_ang_vel": angular,
        "contacts": physics.getContactPoints(bodyA=body),
        "uid": body,
    }


def _light_info(light: Light) -> dict[str, object]:
    return {"logical_state": int(light.lit)}
