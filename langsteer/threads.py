"""PyTorch's threads wait for each other asleep, and not in a loop, on a CPU.

PyTorch cuts an operation into one piece per core and waits for all of them. Its OpenMP library
waits in a loop by default. If other processes use the cores too, the loops take the pieces' time,
and a training all but stops (benchmarks/threads.py). The library reads its policy once, when
PyTorch is imported. So ``import langsteer`` chooses it first.

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
"""A user sets the number of threads with these variables."""


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads wait asleep, in this process and in its children.

    Nothing changes if the user chose a policy, or if PyTorch is imported already.
    """
    if "torch" in sys.modules or any(name in environment for name in CHOSEN_BY_USER):
        return
    environment.update(ASLEEP)
