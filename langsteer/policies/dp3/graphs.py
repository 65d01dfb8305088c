"""The denoiser of a small batch as CUDA graphs: its kernels are launched at once, not one by one.

At batch 1 a GPU computes faster than Python tells it what to compute. A graph records the kernels
of one denoising step and replays them with a single call. Guidance runs between two replays,
unrecorded.

Example, on a GPU (untried: none was at hand)::

    policy = load_policy("outputs/checkpoints/my_run/latest.ckpt", "cuda")
    policy.graphs = DenoiserGraphs()
    policy.predict_action(obs)     # records, then replays
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, list[Tensor]], Tensor]


class Recording(Protocol):
    """Recorded kernels."""

    def replay(self) -> None:
        """Run them again, on the same memory."""
        ...


Recorder = Callable[[Callable[[], Tensor]], tuple[Recording, Tensor]]
"""Runs work once and records it; returns the recording and the memory of the work's result."""


@dataclass
class _Graph:
    sample: Tensor
    modulations: list[Tensor]
    recording: Recording
    output: Tensor


def record_on_gpu(work: Callable[[], Tensor]) -> tuple[Recording, Tensor]:
    """A CUDA graph of ``work``, after three runs beside the main stream, as PyTorch advises."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work()
    return graph, output


class DenoiserGraphs:
    """Records the denoiser for each size of batch, and replays it.

    Weights must stay where they are: load them before.

    Args:
        record: records work; tests without a GPU put another function here.
        most: largest batch of samples to record; larger ones gain nothing.
    """

    def __init__(self, record: Recorder = record_on_gpu, most: int = 32) -> None:
        self._record, self._most = record, most
        self._graphs: dict[int, _Graph] = {}

    def run(self, denoise: Denoiser, sample: Tensor, modulations: list[Tensor]) -> Tensor:
        """``denoise(sample, modulations)`` by a replay.

        Args:
            denoise: the network, without gradients.
            sample: (B, T, A).
            modulations: of the denoising step, as `FilmUNet.modulations` makes them.

        Returns:
            (B, T, A), a copy that later replays leave alone.
        """
        size = len(sample)
        if size > self._most:
            return denoise(sample, modulations)
        if size not in self._graphs:
            self._graphs[size] = self._recorded(denoise, sample, modulations)
        graph = self._graphs[size]
        # A graph replays on fixed memory: inputs are copied into it, the output out of it.
        graph.sample.copy_(sample)
        # One kernel for all, since there are some twenty of them.
        torch._foreach_copy_(graph.modulations, modulations)
        graph.recording.replay()
        return graph.output.clone()

    def _recorded(self, denoise: Denoiser, sample: Tensor, modulations: list[Tensor]) -> _Graph:
        held = sample.clone(), [modulation.clone() for modulation in modulations]
        recording, output = self._record(lambda: denoise(*held))
        return _Graph(*held, recording, output)
