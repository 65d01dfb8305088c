"""openpi's own client, in an environment with its ``openpi-client``.

    python their_client.py URL

Each line on standard input names an observation (npz). Its actions go beside it (.npy), and
a line on standard output says what else came.
"""

import json
import sys
from pathlib import Path

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

client = WebsocketClientPolicy(sys.argv[1])
print(json.dumps(sorted(client.get_server_metadata())), flush=True)
for line in sys.stdin:
    path = Path(line.strip())
    with np.load(path) as arrays:
        observation = {key.replace(":", "/"): value for key, value in arrays.items()}
    prompt = observation.pop("prompt").item()
    answer = client.infer({**observation, "prompt": prompt})
    np.save(path.with_suffix(".npy"), answer["actions"])
    print(json.dumps(sorted(answer)), flush=True)
