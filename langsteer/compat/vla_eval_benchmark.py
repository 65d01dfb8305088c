"""CALVIN's long-horizon benchmark for vla-eval, in this process and without its image.

Example, ``calvin.yaml`` for ``vla-eval run --no-docker -c calvin.yaml``::

    server: {url: "ws://127.0.0.1:8000"}
    benchmarks:
      - benchmark: "langsteer.compat.vla_eval_benchmark:CalvinBenchmark"
        params: {num_sequences: 100}

An episode is a chain of five tasks. It needs vla-eval and the simulator, and no PyTorch.
"""

from typing import Any

import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import IMAGE_RGB, LANGUAGE, DimSpec

from langsteer.calvin.benchmark import CHAIN_LENGTH, N_CHAINS, STEPS_PER_TASK
from langsteer.compat.gym_env import CalvinChainEnv
from langsteer.compat.vla_eval_specs import ACTION
from langsteer.envs.rendering import CAMERA_NAMES
from langsteer.errors import UserError

Message = dict[str, Any]
STATE = DimSpec("state", 15, "calvin_robot_obs")


class CalvinBenchmark(StepBenchmark):
    """CALVIN's chains, judged as in `langsteer.evaluation.long_horizon`.

    An observation has ``images`` (``rgb_static`` (200, 200, 3) uint8, ``rgb_gripper``), ``depths``
    (``depth_static`` float32 metres, ``depth_gripper``), ``states`` (15,) CALVIN's ``robot_obs``,
    ``task_description``, and ``episode_restart`` where the next task of a chain begins. An action
    is ``{"actions": (7,)}``, CALVIN's relative one: units of 0.02 m and 0.05 rad, and a gripper
    above zero opens.

    Args:
        num_sequences: the first so many of the official 1000.
        scene: ``"builtin"`` or CALVIN's ``"A"`` ... ``"D"``.
        assets_path, renderer, led_reset: see `CalvinEnv`.
        ep_len: control steps for each task.
    """

    render_backends = frozenset({"cpu", "gpu"})

    def __init__(
        self,
        num_sequences: int = N_CHAINS,
        scene: str = "builtin",
        assets_path: str | None = None,
        renderer: str = "tiny",
        led_reset: str = "head",
        ep_len: int = STEPS_PER_TASK,
    ) -> None:
        super().__init__()
        if not 1 <= num_sequences <= N_CHAINS:
            raise UserError(f"num_sequences: {num_sequences}; expected 1 to {N_CHAINS}")
        self._count, self._steps = num_sequences, ep_len
        # The simulator draws in make_obs: vla-eval asks for observations by itself.
        self._env = CalvinChainEnv(
            scene=scene,
            observation="",
            assets_path=assets_path,
            renderer=renderer,
            led_reset=led_reset,
            max_steps=ep_len,
        )
        self._is_new_task = False

    @classmethod
    def configure_render(cls, mode: str) -> dict[str, str]:
        """``renderer`` says what draws, whatever the mode."""
        return {}

    def get_tasks(self) -> list[Message]:
        """One for each chain."""
        return [
            {"name": f"chain_{number:04d}", "suite": "calvin", "chain": number}
            for number in range(self._count)
        ]

    def reset(self, task: Message) -> Message:
        """The start of a chain."""
        self._is_new_task = False
        info: Message = self._env.reset(options={"chain": task["chain"]})[1]
        return info

    def step(self, action: Message) -> StepResult:
        """One control step; raises `UserError` for an action that is none."""
        if "actions" not in action:
            raise UserError(f"an action has {sorted(action)}; expected 'actions', (7,)")
        _, reward, finished, truncated, info = self._env.step(np.ravel(action["actions"]))
        self._is_new_task = bool(reward) and not finished
        return StepResult(info, reward, finished or truncated, info)

    def make_obs(self, raw_obs: Message, task: Message) -> Message:
        """What the model server gets; see the class."""
        seen = self._env.env.observe(cameras=CAMERA_NAMES)
        message = {
            "images": seen["rgb_obs"],
            "depths": seen["depth_obs"],
            "states": seen["robot_obs"],
            "task_description": self._env.task_description,
        }
        if self._is_new_task:
            message["episode_restart"] = True
        return message

    def get_step_result(self, step_result: StepResult) -> Message:
        """Whether all five tasks are done, and how many."""
        info = step_result.info
        return {
            "success": bool(info["is_success"]),
            "completed_subtasks": int(info["completed"]),
        }

    def get_metric_keys(self) -> dict[str, str]:
        """The mean of ``completed_subtasks`` is the benchmark's average length."""
        return {"success": "mean", "completed_subtasks": "mean"}

    def get_metadata(self) -> Message:
        """Steps of a chain, at most."""
        return {"max_steps": CHAIN_LENGTH * self._steps}

    def get_action_spec(self) -> dict[str, DimSpec]:
        """See the class."""
        return ACTION

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """See the class."""
        return {
            "rgb_static": IMAGE_RGB,
            "rgb_gripper": IMAGE_RGB,
            "state": STATE,
            "language": LANGUAGE,
        }

    def cleanup(self) -> None:
        """Free the simulator."""
        self._env.close()
