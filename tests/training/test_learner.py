"""A step waits for no GPU, and training computes in one precision throughout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from langsteer.configuration import compose
from langsteer.data.store import open_store
from langsteer.policies.dp3 import DP3, encoder
from langsteer.policies.precision import Precision
from langsteer.training import learner
from langsteer.training.calvin_dataset import CalvinData, train_loader
from langsteer.training.config import RunConfig
from langsteer.training.dp3_trainer import Trainer
from langsteer.training.learner import Learner
from langsteer.training.run_state import RunState
from langsteer.training.sampler import Schedule
from langsteer.training.world import World


class Called(TorchDispatchMode):
    """Notes the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a GPU's ways through the code, with the tensors of a CPU."""
    monkeypatch.setattr(learner, "to_device", lambda batch, device, buffer: batch)
    monkeypatch.setattr(encoder, "goes_by_frames", lambda points: False)


def test_no_step_asks_the_device_for_a_number(
    as_on_a_gpu: None, tiny_overrides: list[str], tiny_store: Path
) -> None:
    """Each question waits for a GPU."""
    run = RunConfig.from_dict(compose("train", tiny_overrides))
    data = CalvinData(open_store(tiny_store), run.policy, run.training.dataset, seed=0)
    schedule = Schedule(len(data.train), batch_size=8, accumulation=1, seed=0)
    state = RunState(run.training, run.policy, data, schedule, torch.device("cpu"))
    state.device = torch.device("cuda")
    learns = Learner(state, World())
    first, *rest = train_loader(data, schedule, 0, 0, num_epochs=1, num_workers=0)
    learns.add(first)
    learns.step()
    with Called() as called:
        for batch in rest:
            learns.add(batch)
            learns.step()
    assert sum("_fused_adamw" in name for name in called.names) == len(rest)
    asking = ("_local_scalar_dense", "nonzero", "unique", "equal.default", "lift_fresh")
    assert not [name for name in called.names if any(one in name for one in asking)]


def test_compiled_training_compiles_nothing_after_its_first_epoch(
    training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for the partial batch nor in its validation, which are compiled as well."""
    compile_parts, end_epoch = DP3.compile_parts, Trainer._end_epoch
    graphs: list[torch.fx.GraphModule] = []
    compiled: list[DP3] = []
    after_epoch: list[int] = []

    def counted(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def with_counts(policy: DP3) -> None:
        compiled.append(policy)
        compile_parts(policy, backend=counted)

    def ends(trainer: Trainer, *arguments: Any) -> None:
        end_epoch(trainer, *arguments)
        after_epoch.append(len(graphs))

    monkeypatch.setattr(DP3, "compile_parts", with_counts)
    monkeypatch.setattr(Trainer, "_end_epoch", ends)
    torch._dynamo.reset()
    training.here("training.compile=true", "training.num_epochs=2")
    torch._dynamo.reset()
    assert len(compiled) == 2, "the trained policy and its average"
    # The loss of two sizes, and of the average in validation, and there the denoiser.
    assert after_epoch == [4, 4]


def test_training_and_its_validation_compute_in_the_runs_precision(
    training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []
    losses: list[tuple[bool, str]] = []
    rounded: list[str] = []
    products, cast, compute_loss = Precision.products, Precision.cast_weights, DP3.compute_loss

    @contextmanager
    def noted_products(precision: Precision, device: torch.device) -> Iterator[None]:
        with products(precision, device):
            entered.append(precision.name)
            yield
            entered.pop()

    def noted_loss(policy: DP3, *arguments: Any) -> torch.Tensor:
        losses.append((torch.is_grad_enabled(), entered[-1]))
        return compute_loss(policy, *arguments)

    def noted_cast(precision: Precision, model: torch.nn.Module) -> None:
        rounded.append(precision.name)
        cast(precision, model)

    monkeypatch.setattr(Precision, "products", noted_products)
    monkeypatch.setattr(Precision, "cast_weights", noted_cast)
    monkeypatch.setattr(DP3, "compute_loss", noted_loss)
    training.here("training.precision=bf16", "training.num_epochs=1")
    assert set(losses) == {(True, "bf16"), (False, "bf16")}
    assert rounded == ["bf16"], "validation rounds the weights once"
