"""How many of PyTorch's threads a network gets on a CPU.

Example::

    choose_threads(policy, torch.device("cpu"), os.environ)
    print(describe_place(torch.device("cpu")))      # cpu, 1 thread
"""

from collections.abc import Mapping

import torch
from torch import nn

from langsteer.threads import THREAD_COUNTS

SMALL_NETWORK = 3_000_000
"""Weights below which a CPU is faster with one thread than with two (benchmarks/threads.py)."""


def choose_threads(model: nn.Module, device: torch.device, environment: Mapping[str, str]) -> None:
    """Give a small network on a CPU one thread, unless the user said how many.

    Its operations are short: to wake a second thread takes longer than what it does of them.
    """
    chosen = any(name in environment for name in THREAD_COUNTS)
    weights = sum(weight.numel() for weight in model.parameters())
    if device.type == "cpu" and not chosen and weights < SMALL_NETWORK:
        torch.set_num_threads(1)


def describe_place(device: torch.device) -> str:
    """The device and the number of threads, for a reader."""
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"
