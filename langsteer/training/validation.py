"""Validation: a loss comparable between epochs and runs, and errors in physical units.

Each window meets the same noise and timesteps in every validation. They are drawn for blocks of a
fixed size, so the numbers do not depend on batch size or ranks. Losses are weighted by window.

Example::

    numbers = validate(ema.model, data, 256, World(), stop)
    numbers["val_loss"]
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langsteer.calvin.dataset import METRES_PER_UNIT, RADIANS_PER_UNIT
from langsteer.policies.dp3 import DP3
from langsteer.training.calvin_dataset import Batch, CalvinData, diffusion_draws
from langsteer.training.consensus import all_sum, any_rank
from langsteer.training.pytorch_util import to_device
from langsteer.training.signals import Stopped, StopRequest
from langsteer.training.world import World

BLOCK = 64
_SEED = 20_260_213  # of validation alone; runs of any seed are compared with each other
# Of a relative action of 1.
MILLIMETRES, DEGREES = 1000 * METRES_PER_UNIT, float(np.degrees(RADIANS_PER_UNIT))


@torch.no_grad()
def validate(
    policy: DP3,
    data: CalvinData,
    action_windows: int,
    world: World,
    stop: StopRequest,
) -> dict[str, float]:
    """Measure a policy on the validation windows in its precision, the ranks sharing the work.

    Args:
        policy: usually the averaged one.
        data: measured on its ``val`` windows.
        action_windows: number of them, evenly spread, to sample and compare actions on.
        world: this process among the ranks; all of them must call.
        stop: obeyed between blocks.

    Returns:
        ``val_loss``; of the executed part of sampled trajectories ``val_position_error_mm`` and
        ``val_rotation_error_deg`` (mean length of the error per step) and
        ``val_gripper_accuracy`` (share of steps with the right sign). Empty without windows.

    Raises:
        Stopped: on every rank, once one of them was asked to stop.
    """
    if not len(data.val):
        return {}
    # Evaluation mode withholds no sentences; the weights are rounded once for all blocks.
    was_training = policy.training
    policy.eval()
    precision = policy.precision
    with precision.products(policy.device), precision.weights_cast(policy.model):
        losses = torch.zeros(2, dtype=torch.float64)
        # Blocks have fixed sizes and seeds of their own, so the ranks only divide them.
        for number, block in _own_blocks(np.arange(len(data.val)), world, stop):
            losses += _block_loss(policy, data, block, number)
        numbers = {"val_loss": _mean(all_sum(losses))}
        numbers |= _action_errors(policy, data, action_windows, world, stop)
    policy.train(was_training)
    return numbers


def _own_blocks(
    windows: NDArray[np.int64], world: World, stop: StopRequest
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """This rank's blocks with their numbers; the ranks ask in step whether to go on."""
    blocks = np.array_split(windows, -(-len(windows) // BLOCK))
    for first in range(0, len(blocks), world.world_size):
        # All ranks ask before each block, or one would wait for another's sum.
        if any_rank(stop.requested):
            raise Stopped
        number = first + world.rank
        if number < len(blocks):
            yield number, blocks[number]


def _mean(sum_and_count: Tensor) -> float:
    return float(sum_and_count[0] / sum_and_count[1])


def _block_loss(policy: DP3, data: CalvinData, index: NDArray[np.int64], number: int) -> Tensor:
    """Sum of the windows' losses and their count, (2,) float64."""
    batch = _batch(policy, data, index)
    # The same noise in every validation: losses differ by the weights alone.
    drawn = diffusion_draws(policy.config, len(index), [_SEED, number])
    noise, timesteps = (torch.from_numpy(part).flatten(0, 1).to(policy.device) for part in drawn)
    loss = policy(batch, noise, timesteps)
    return torch.tensor([float(loss) * len(index), len(index)], dtype=torch.float64)


def _batch(policy: DP3, data: CalvinData, index: NDArray[np.int64]) -> Batch:
    return to_device(data.batch(data.val, index), policy.device, data.buffer)


def _action_errors(
    policy: DP3,
    data: CalvinData,
    count: int,
    world: World,
    stop: StopRequest,
) -> dict[str, float]:
    count = min(count, len(data.val))
    if not count:
        return {}
    chosen = np.linspace(0, len(data.val) - 1, count).astype(np.int64)
    sums = torch.zeros(4, dtype=torch.float64)
    for number, block in _own_blocks(chosen, world, stop):
        sums += _block_errors(policy, data, block, number)
    position, rotation, gripper, steps = all_sum(sums).tolist()
    return {
        "val_position_error_mm": position / steps,
        "val_rotation_error_deg": rotation / steps,
        "val_gripper_accuracy": gripper / steps,
    }


def _block_errors(policy: DP3, data: CalvinData, index: NDArray[np.int64], number: int) -> Tensor:
    """Sums over steps of position error, rotation error, right grippers, and ones; (4,)."""
    config, batch = policy.config, _batch(policy, data, index)
    generator = torch.Generator().manual_seed(_SEED + number)
    predicted = policy.predict_action(batch["obs"], generator=generator)["action"]
    first = config.n_obs_steps - 1
    wanted = batch["action"][:, first : first + config.n_action_steps]
    # Only the executed part of a trajectory counts: the robot never sees the rest.
    error = (predicted.float() - wanted).double()
    position = error[..., :3].norm(dim=-1).sum() * MILLIMETRES
    rotation = error[..., 3:6].norm(dim=-1).sum() * DEGREES
    right = ((predicted[..., 6] > 0) == (wanted[..., 6] > 0)).double().sum()
    steps = torch.tensor(float(wanted[..., 6].numel()), dtype=torch.float64)
    return torch.stack([position.cpu(), rotation.cpu(), right.cpu(), steps])
