"""The command ``langsteer-serve``: a policy of ours for other processes.

Example::

    langsteer-serve policy.ckpt_path=outputs/checkpoints/x/latest.ckpt port=8000
"""

import logging
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from langsteer.configuration import run_command
from langsteer.errors import exits_cleanly
from langsteer.loopback import is_loopback
from langsteer.policies.settings import CheckpointSettings
from langsteer.settings import Bound, Settings

Port = Annotated[int, Bound(lambda value: 0 <= value < 2**16, "a number from 0 to 65535")]


@dataclass(frozen=True)
class ServeSettings(Settings):
    """See ``conf/serve.yaml``."""

    policy: CheckpointSettings
    host: str
    port: Port
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "tf32", "bf16"]


@exits_cleanly
def main() -> None:
    """Entry point of ``scripts/serve_policy.py`` and ``langsteer-serve``."""
    run_command("serve", _serve)


def _serve(config: dict[str, Any]) -> None:
    from langsteer.policies.agent import Agent
    from langsteer.policies.loading import (
        checked_path,
        checkpoint_identity,
        device_name,
        load_policy,
        precision_name,
    )
    from langsteer.serving.server import AgentServer

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = ServeSettings.from_dict(config)
    path, device = checked_path(settings.policy.ckpt_path), device_name(settings.device)
    policy = load_policy(path, device, settings.policy.use_ema, settings.precision)
    served = {
        **checkpoint_identity(path),
        "use_ema": settings.policy.use_ema,
        "precision": precision_name(settings.precision, settings.device),
    }
    if not is_loopback(settings.host):
        print(
            f"warning: host={settings.host}: everybody who reaches this machine can use the policy",
            file=sys.stderr,
        )
    server = AgentServer(lambda: Agent(policy), served)
    with server.listen(settings.host, settings.port) as listening:
        port = listening.socket.getsockname()[1]
        print(f"serving {path} on ws://{settings.host}:{port}; Ctrl-C ends it", flush=True)
        listening.serve_forever()
