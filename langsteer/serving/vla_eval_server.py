"""Our policies as a model server of vla-eval.

Example::

    python -m langsteer.serving.vla_eval_server --address 127.0.0.1:8000 \\
        --args.ckpt_path outputs/checkpoints/x/latest.ckpt

It answers `langsteer.compat.vla_eval_benchmark`: clouds are made of that one's depth images.
"""

from typing import Any

from vla_eval.model_servers.base import SessionContext
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import run_server
from vla_eval.specs import LANGUAGE, DimSpec

from langsteer.compat.vla_eval_specs import ACTION
from langsteer.errors import UserError
from langsteer.policies.agent import Agent
from langsteer.policies.loading import checked_path, load_policy
from langsteer.serving.calvin_model import CalvinModel

Message = dict[str, Any]


class LangSteerServer(PredictModelServer):
    """One action for each observation, with a memory for each connection.

    Args:
        ckpt_path: a checkpoint or an exported folder.
        device: ``"cpu"`` or ``"cuda"``.
        use_ema: its averaged weights, or the last ones of training.

    Raises:
        UserError: the policy cannot be read.
    """

    def __init__(self, ckpt_path: str, device: str = "cpu", use_ema: bool = True) -> None:
        super().__init__()
        self._policy = load_policy(checked_path(ckpt_path), device, use_ema)
        self._models: dict[str, CalvinModel] = {}

    def predict(self, obs: Message, ctx: SessionContext) -> Message:
        """``{"actions": (7,)}``, relative; raises `UserError` for observations without depth."""
        if ctx.session_id not in self._models:
            self._models[ctx.session_id] = CalvinModel(Agent(self._policy))
        model = self._models[ctx.session_id]
        if ctx.is_first or obs.get("episode_restart"):
            model.reset()
        if "depths" not in obs or "states" not in obs:
            raise UserError(
                f"an observation has {sorted(obs)}; expected depths and states, as of "
                "langsteer.compat.vla_eval_benchmark"
            )
        seen = {
            "depth_obs": obs["depths"],
            "rgb_obs": obs.get("images", {}),
            "robot_obs": obs["states"],
        }
        return {"actions": model.step(seen, obs["task_description"])}

    async def on_episode_end(self, result: Message, ctx: SessionContext) -> None:
        """Forget the connection's memory; a chain's seeds begin anew."""
        self._models.pop(ctx.session_id, None)
        await super().on_episode_end(result, ctx)

    def get_action_spec(self) -> dict[str, DimSpec]:
        """CALVIN's relative actions."""
        return ACTION

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """The sentence, and depth images, for which vla-eval has no specification."""
        return {"language": LANGUAGE}


if __name__ == "__main__":
    run_server(LangSteerServer)
