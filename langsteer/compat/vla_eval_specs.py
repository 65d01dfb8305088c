"""CALVIN's relative actions in vla-eval's terms, for its benchmarks and its model servers."""

from vla_eval.specs import GRIPPER_CLOSE_NEG, POSITION_DELTA, ROTATION_EULER, DimSpec

ACTION: dict[str, DimSpec] = {
    "position": POSITION_DELTA,
    "rotation": ROTATION_EULER,
    "gripper": GRIPPER_CLOSE_NEG,
}
