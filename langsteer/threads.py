"""How PyTorch's threads wait for each other on a CPU: asleep, and not in a loop.

PyTorch cuts an operation into one piece per core and waits for all of them. Its OpenMP library
waits in a loop by default. Where other processes use the cores too, the loops take the time that
the pieces need, and a training all but stops (benchmarks/threads.py). The library reads its policy
once, when PyTorch is imported; ``import langsteer`` therefore chooses it first.

Example::

    wait_asleep(os.environ)
    import torch
"""

import sys
from collections.abc import MutableMapping

ASLEEP = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
"""For GNU's and for Intel's OpenMP library; a PyTorch build has one of them."""
CHOSEN_BY_USER = (*ASLEEP, "GOMP_SPINCOUNT")
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a user sets the number of threads."""


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads wait asleep, in this process and in those that it starts.

    Nothing changes where the user chose a policy, or where PyTorch is imported already.
    """
    if "torch" in sys.modules or any(name in environment for name in CHOSEN_BY_USER):
        return
    environment.update(ASLEEP)
