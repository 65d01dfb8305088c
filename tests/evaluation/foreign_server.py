"""A server that is not ours, in a process of its own: it speaks openpi's protocol by itself.

    python foreign_server.py PORT FAULT GOOD_ANSWERS METADATA

It prints its port, gives so many good answers, and then does what FAULT says.
"""

import json
import os
import sys
import time

import msgpack
import numpy as np
from websockets.sync.server import serve

FAULTS = {
    "nan": lambda: np.full((8, 7), np.nan),
    "shape": lambda: np.zeros((8, 6)),
    "die": lambda: os._exit(9),
    "slow": lambda: time.sleep(600),
    "fail": lambda: 1 / 0,
    "garbage": lambda: b"\xc1 no msgpack",
}
port, fault, good_answers, metadata = sys.argv[1:]
answered = 0


def encode(value):
    data = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__ndarray__": True, **data}


def shapes(value):
    """What came in, for the test to see."""
    if isinstance(value, dict) and b"__ndarray__" in value:
        return [value[b"dtype"], *value[b"shape"]]
    if isinstance(value, dict):
        return {key: shapes(item) for key, item in value.items()}
    return [shapes(item) for item in value] if isinstance(value, list) else value


def answer(connection):
    global answered
    connection.send(msgpack.packb(json.loads(metadata)))
    for data in connection:
        print(json.dumps(shapes(msgpack.unpackb(data))), flush=True)
        good = fault == "none" or answered < int(good_answers)
        try:
            actions = np.zeros((8, 7)) if good else FAULTS[fault]()
        except ZeroDivisionError:
            connection.send("Traceback (most recent call last):\nZeroDivisionError: by zero")
            connection.close(1011)
            return
        reply = {"actions": actions, "server_timing": {"infer_ms": 1.0}}
        connection.send(
            actions if isinstance(actions, bytes) else msgpack.packb(reply, default=encode)
        )
        answered += 1


with serve(answer, "127.0.0.1", int(port), compression=None, max_size=None) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
