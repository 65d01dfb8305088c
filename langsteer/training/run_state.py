"""The state of a run: what training changes and a checkpoint holds, fresh or restored.

Example::

    state = RunState(settings, policy_config, data, schedule, torch.device("cpu"))
    state.restore(experiment.resumed, experiment.checkpoint)
    torch.save(state.payload(), path)
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from langsteer.errors import UserError
from langsteer.nesting import differences
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.loading import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, load_policy
from langsteer.policies.precision import Precision
from langsteer.policies.weights import check_tensors
from langsteer.training.calvin_dataset import CalvinData
from langsteer.training.checkpoint_util import provenance
from langsteer.training.config import TrainingConfig
from langsteer.training.ema_model import EMAModel
from langsteer.training.experiment import check_fits
from langsteer.training.pytorch_util import make_optimizer
from langsteer.training.sampler import Schedule


@dataclass
class Progress:
    """How far a run is, in completed epochs and optimiser steps, and its unlogged numbers.

    ``step_in_epoch`` counts within epoch ``epoch``. ``records`` counts the lines of the folder's
    metrics, on rank 0. ``unlogged_loss`` sums the steps' losses since the last record,
    ``epoch_loss`` since the epoch began.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    records: int = 0
    unlogged_loss: float = 0.0
    unlogged_steps: int = 0
    epoch_loss: float = 0.0


class RunState:
    """The policy, its average, the optimiser, and how far they are.

    Attributes:
        ema: None without averaging.
        metrics: the numbers of the last completed epoch.
    """

    def __init__(
        self,
        config: TrainingConfig,
        policy_config: DP3Config,
        data: CalvinData,
        schedule: Schedule,
        device: torch.device,
    ) -> None:
        self.config, self.data, self.schedule, self.device = config, data, schedule, device
        torch.manual_seed(config.seed)  # the same initial weights on every rank
        self.policy = _new_policy(policy_config, data).to(device)
        self.policy.precision = Precision.choose(config.precision, device)
        self.ema = EMAModel(self.policy) if config.use_ema else None
        self.optimizer = make_optimizer(self.policy, config)
        self.progress = Progress()
        self.metrics: dict[str, float] = {}

    @property
    def validated_policy(self) -> DP3:
        """The validated weights: the averaged ones, if there are any."""
        model = self.policy if self.ema is None else self.ema.model
        assert isinstance(model, DP3)
        return model

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.schedule.steps_per_epoch * self.config.num_epochs

    def settings(self) -> dict[str, Any]:
        """The configuration of policy and training, as plain values."""
        return {"policy": self.policy.config.to_dict(), "training": self.config.to_dict()}

    def payload(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        # Not only weights: whatever the next step reads is in here, or the resumed run differs.
        random = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "config": self.settings(),
            "pipeline": self.policy.pipeline,
            "data": {
                "windows": self.data.fingerprint(),
                "effective_batch_size": self.schedule.effective_batch_size,
            },
            "model": self.policy.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"step": self.progress.step, "total_steps": self.total_steps},
            "progress": {
                **asdict(self.progress),
                "ema_updates": 0 if self.ema is None else self.ema.updates,
            },
            "rng": random,
            "metrics": self.metrics,
            "provenance": provenance(),
        }

    def begin_from(self, path: str) -> None:
        """Take the weights and the normaliser of a trained policy; the optimiser starts anew.

        Raises:
            UserError: it cannot be read, was built otherwise, or sees other clouds.
        """
        trained = load_policy(path)
        differing = differences(
            trained.config.lasting(),
            self.policy.config.lasting(),
            "  {name}: {one} there, {other} now",
        )
        if differing:
            raise UserError(
                f"training.init_from={path}: that policy was built otherwise:\n{differing}\n"
                "set policy.* as it was, or train from nothing"
            )
        trained.check_pipeline(self.data.store.pipeline)
        for policy in {self.policy, self.validated_policy}:
            policy.load_state_dict(trained.state_dict())

    def restore(self, payload: dict[str, Any], path: Path | None) -> None:
        """Become what was saved.

        Raises:
            UserError: it was another run (`check_fits`), or a tensor is damaged.
        """
        # Compare first: a mismatch must leave nothing half restored.
        check_fits(path, payload, self.payload())
        path = path or Path()
        # The weights are copied into tensors the optimiser already holds.
        check_tensors(path, payload["model"], self.policy.state_dict())
        self.policy.load_state_dict(payload["model"])
        check_optimizer(path, payload["optimizer"], self.optimizer)
        # What was set stays: `check_fits` compared it, and the file's own might be anything.
        ours = {k: v for k, v in self.optimizer.param_groups[0].items() if k != "params"}
        self.optimizer.load_state_dict(payload["optimizer"])
        self.optimizer.param_groups[0].update(ours)
        if self.ema is not None:
            check_tensors(path, payload.get("ema") or {}, self.ema.model.state_dict())
            self.ema.model.load_state_dict(payload["ema"])
            self.ema.updates = payload["progress"]["ema_updates"]
        names = [field.name for field in fields(Progress)]
        self.progress = Progress(**{name: payload["progress"][name] for name in names})
        self.metrics = payload["metrics"]
        # Last: building the policy and the optimiser above has drawn numbers.
        try:
            torch.set_rng_state(payload["rng"]["torch"])
            if "cuda" in payload["rng"] and self.device.type == "cuda":
                torch.cuda.set_rng_state(payload["rng"]["cuda"], self.device)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: damaged: its random state: {error}") from error


def check_optimizer(path: Path, saved: Any, optimizer: torch.optim.Optimizer) -> None:  # noqa: ANN401
    """See that a checkpoint's optimiser state is one of this optimiser's weights.

    AdamW itself accepts moments of any shape. In its next step it fails, or broadcasts them.

    Raises:
        UserError: it is not; the message names the first wrong part.
    """
    (group,) = optimizer.param_groups
    groups = saved.get("param_groups") if isinstance(saved, dict) else None
    places = list(range(len(group["params"])))
    listed = groups if isinstance(groups, list) else []
    fits = [one.get("params") for one in listed if isinstance(one, dict)] == [places]
    states = saved.get("state") if fits else None
    if not isinstance(states, dict) or not set(states) <= set(places):
        raise UserError(f"{path}: damaged: its optimizer is not that of its policy")
    for place, state in states.items():
        if not isinstance(state, dict):
            raise UserError(f"{path}: damaged: optimizer.state[{place}] is no table")
        weight, one = group["params"][place], torch.zeros(())
        check_tensors(
            path,
            {f"optimizer.state[{place}].{name}": value for name, value in state.items()},
            {
                f"optimizer.state[{place}].{name}": one if name == "step" else weight
                for name in ("step", "exp_avg", "exp_avg_sq")
            },
        )


def _new_policy(config: DP3Config, data: CalvinData) -> DP3:
    """Untrained, with the normaliser of the training data."""
    policy = DP3(config, data.store.pipeline.to_dict())
    rows = data.train_rows()
    policy.set_normalizer(
        Normalizer.fit(config, data.buffer.states[rows], data.buffer.actions[rows])
    )
    if policy.language is not None and data.sentences is not None:
        policy.language.remember(data.sentences.encoder)
    return policy
