"""openpi's own server around a small policy, in an environment with its ``openpi-client``.

    PYTHONPATH=OPENPI/src python their_server.py PORT KEPT

The policy lowers the hand while the images show something, and fails without a sentence. It keeps
the shapes of what it saw in the file KEPT.
"""

import json
import sys
from pathlib import Path

import numpy as np
from openpi.serving.websocket_policy_server import WebsocketPolicyServer
from openpi_client.base_policy import BasePolicy


class Lower(BasePolicy):
    """Ten steps down, whatever is asked."""

    def infer(self, obs):
        """Relative actions (10, 7), float64, and a note that openpi's policies send, too."""
        seen = {key: list(np.shape(value)) for key, value in obs.items()}
        Path(sys.argv[2]).write_text(json.dumps({**seen, "prompt": obs["prompt"]}))
        if not obs["observation/image"].any() or not obs["prompt"]:
            raise ValueError("there is nothing to see")
        actions = np.zeros((10, 7))
        actions[:, 2], actions[:, 6] = -0.5, 1
        return {"actions": actions, "policy_timing": {"infer_ms": np.float64(1.5)}}


WebsocketPolicyServer(
    Lower(), "127.0.0.1", int(sys.argv[1]), {"name": np.array(["lower"]), "fps": np.int64(30)}
).serve_forever()
