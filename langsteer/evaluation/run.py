"""What all evaluations share: policy and simulator, the folder and its files.

Example::

    folder = open_run(settings.output_dir, "outputs/experiments", settings.identity())
    write_csv(folder / "episodes.csv", ("episode", "success"), results)
"""

import csv
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from langsteer.command_line import called_as
from langsteer.errors import UserError
from langsteer.files import replacing
from langsteer.policies.settings import CheckpointSettings
from langsteer.provenance import git_commit
from langsteer.resumable import settle_settings
from langsteer.settings import Count, Natural, NonNegative, Positive, Settings
from langsteer.steering.config import SteeringConfig

if TYPE_CHECKING:
    from langsteer.serving.client import RemotePolicy

_OF_A_CHECKPOINT = ("ckpt_path", "use_ema")
_OF_A_SERVER = ("url", "observation", "actions", "action_horizon")
_NO_PART_OF_RESULTS = ("control", "num_workers", "shard", "output_dir", "annotations")


@dataclass(frozen=True)
class PolicySettings(CheckpointSettings, prefix="policy."):
    """A checkpoint, or a policy on a server at ``url``.

    Attributes:
        told: whether it is told the sentences; false leaves the tasks to the steering alone.
        blank: whether a blank network acts in its place, the control of a steering.
        url: ``ws://HOST:PORT`` of a server with openpi's protocol.
        observation: parts to send, of ``rgb``, ``depth`` and ``cloud``; None: as the server says.
        actions: how the server acts; None: as it says.
        action_horizon: number of actions to execute of an answer; None executes all.
        connect_seconds: how long to wait for a missing server.
        answer_seconds: how long an answer may take.
    """

    told: bool = True
    blank: bool = False
    url: str | None = None
    observation: tuple[Literal["rgb", "depth", "cloud"], ...] | None = None
    actions: Literal["relative", "absolute"] | None = None
    action_horizon: Count | None = None
    connect_seconds: NonNegative = 30
    answer_seconds: Positive = 300

    def check(self) -> None:
        """Raise `UserError` for two policies, or for keys of a server without one."""
        both = self.url is not None and self.ckpt_path is not None
        self.require(not both, "ckpt_path", "null where policy.url is set; name one of them")
        for key in ("observation", "actions", "action_horizon"):
            alone = self.url is None and getattr(self, key) is not None
            self.require(not alone, key, "null without policy.url")
        self.require(self.url is None or self.told, "told", "true where policy.url is set")
        self.require(self.url is None or not self.blank, "blank", "false where policy.url is set")

    def identity(self) -> dict[str, Any]:
        """The keys the results depend on."""
        keys = _OF_A_CHECKPOINT if self.url is None else _OF_A_SERVER
        found = {key: value for key, value in self.to_dict().items() if key in keys}
        # Only where they change the results: those of earlier versions go on without them.
        if not self.told:
            found["told"] = False
        if self.blank:
            found["blank"] = True
        return found

    def connect(self) -> "RemotePolicy":
        """The server's policy; raises `UserError` if it is not there."""
        from langsteer.serving.client import RemotePolicy

        assert self.url is not None
        return RemotePolicy(self.url, self.connect_seconds, self.answer_seconds)

    def said(self) -> dict[str, Any]:
        """The settings that replace the server's own description."""
        told = {"observation": self.observation, "actions": self.actions}
        return {key: value for key, value in told.items() if value is not None}


@dataclass(frozen=True)
class EnvSettings(Settings, prefix="env."):
    """The simulator; see ``conf/env/calvin.yaml``."""

    scene: str = "builtin"
    assets_path: str | None = None
    renderer: str = "depth"
    led_reset: str = "head"


@dataclass(frozen=True)
class RunSettings(Settings):
    """Settings of every evaluation; see ``conf/``."""

    env: EnvSettings
    seed: Natural
    max_steps: Count
    videos: Natural
    num_workers: Count
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "tf32", "bf16"]
    output_dir: str | None

    def identity(self) -> dict[str, Any]:
        """All that the results depend on, in plain values: not processes, jobs and folders.

        Raises:
            UserError: a file is missing or damaged.
        """
        from langsteer.policies.loading import device_name, precision_name  # PyTorch

        values = {k: v for k, v in self.to_dict().items() if k not in _NO_PART_OF_RESULTS}
        precision = precision_name(self.precision, self.device)
        device = device_name(self.device)
        return {**values, "device": device, "precision": precision, "commit": git_commit()}


@dataclass(frozen=True)
class PlaySettings(RunSettings):
    """An evaluation of one policy."""

    policy: PolicySettings
    steering: SteeringConfig

    def identity(self) -> dict[str, Any]:
        """`RunSettings.identity`, with the checkpoint's or a server's own description."""
        from langsteer.policies.loading import checkpoint_identity  # PyTorch

        values = {**super().identity(), "policy": self.policy.identity()}
        if self.policy.url is None:
            return {**values, "checkpoint": checkpoint_identity(self.policy.ckpt_path)}
        with self.policy.connect() as remote:
            says = json.loads(json.dumps(remote.metadata, default=str))
        checkpoint = {"path": self.policy.url, "says": says}
        return {**values, "precision": "of the server", "checkpoint": checkpoint}

    def check(self) -> None:
        """Raise `UserError` for a steering of a policy elsewhere."""
        if self.policy.url is not None and self.steering.steers:
            raise UserError(
                "policy.url: a policy in another process cannot be steered here; use steering=none"
            )


class Environment(TypedDict):
    """`CalvinEnv.provenance` as far as results show it."""

    scene: str
    renderer: str


def open_run(
    output_dir: str | None, root: str, identity: Mapping[str, Any], what: str = ""
) -> Path:
    """The folder of a run; an earlier run of the same settings is continued.

    Args:
        output_dir: the folder; by default ``<root>/<experiment>_<checkpoint>_<what>_<digest>``.
        root: of the kind of evaluation.
        identity: settings behind the results; kept as ``settings.json``.
        what: is played.

    Raises:
        UserError: it holds a run of other settings; they are listed.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    parts = [*_names(identity["checkpoint"]["path"]), what, digest]
    folder = Path(output_dir or f"{root}/{'_'.join(part for part in parts if part)}")
    remedy = "choose another output_dir, or remove that folder"
    settle_settings(folder / "settings.json", identity, remedy)
    return folder


def _names(checkpoint: str) -> list[str]:
    """Parts of a folder's name: a checkpoint's folder and file, or a server's address."""
    if "://" in checkpoint:
        return [re.sub(r"\W+", "_", checkpoint.partition("://")[2]).strip("_")]
    return [Path(checkpoint).parent.name, Path(checkpoint).stem]


def facts(identity: Mapping[str, Any], environment: Mapping[str, Any] | None) -> dict[str, str]:
    """What made a run, for the head of its report.

    Args:
        identity: see `RunSettings.identity`.
        environment: the simulator's provenance.
    """
    env, steering = environment or {}, identity.get("steering", {})
    found = {
        "checkpoint": identity["checkpoint"]["path"],
        "steering": _steering_words(steering) if steering else "",
        "scene": f"{env.get('scene', identity['env']['scene'])}, drawn by {env.get('renderer')}",
        "seed": str(identity["seed"]),
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
        "command": shlex.join([*called_as().split(), *sys.argv[1:]]),
    }
    return {name: text for name, text in found.items() if text}


def _steering_words(steering: Mapping[str, Any]) -> str:
    """Its name, and the keys that differ from those of none."""
    plain = SteeringConfig().to_dict()
    changed = [f"{key}={value}" for key, value in steering.items() if plain.get(key) != value]
    return ", ".join([steering["name"], *(one for one in changed if not one.startswith("name="))])


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """One line for each row, lists joined by spaces."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            cells = (row[column] for column in columns)
            writer.writerow([" ".join(cell) if isinstance(cell, list) else cell for cell in cells])
