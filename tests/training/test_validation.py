"""The validation loss is comparable between epochs and runs."""

import numpy as np
import pytest
import torch

from langsteer.data.store import open_store
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.training.calvin_dataset import CalvinData, diffusion_draws
from langsteer.training.config import TrainingDatasetConfig
from langsteer.training.signals import Stopped, StopRequest
from langsteer.training.validation import BLOCK, validate
from langsteer.training.world import World

POLICY = DP3Config(
    down_dims=(8, 16), point_widths=(8,), encoder_output_dim=8, diffusion_step_embed_dim=8
)
NEVER = StopRequest()


@pytest.fixture
def data(tmp_path, store_factory):
    """Validation windows that are no multiple of the block."""
    path = store_factory(tmp_path / "s.zarr", [30, 90], ["training", "validation"])
    return CalvinData(open_store(path), POLICY, TrainingDatasetConfig(), seed=0)


@pytest.fixture
def policy(data):
    torch.manual_seed(0)
    policy = DP3(POLICY, data.store.pipeline.to_dict())
    policy.set_normalizer(Normalizer.fit(POLICY, data.buffer.states, data.buffer.actions))
    return policy


def test_validation_of_the_same_weights_is_the_same_number(policy, data):
    numbers = [validate(policy, data, 16, World(), NEVER) for _ in range(2)]
    assert numbers[0] == numbers[1]


def test_validation_leaves_the_random_numbers_and_mode_of_training_alone(policy, data):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    policy.train()
    validate(policy, data, 16, World(), NEVER)
    assert torch.equal(torch.get_rng_state(), before)
    assert policy.training
    assert all(weight.grad is None for weight in policy.parameters())


def test_validation_weighs_each_window_alike(policy, data):
    """Against a mean over windows that are evaluated one by one, with the blocks' noise."""
    blocks = np.array_split(np.arange(len(data.val)), -(-len(data.val) // BLOCK))
    assert len({len(block) for block in blocks}) == 2
    losses = []
    with torch.no_grad():
        for number, block in enumerate(blocks):
            drawn = diffusion_draws(POLICY, len(block), [20_260_213, number])
            noise, steps = (torch.from_numpy(part) for part in drawn)
            for place, window in enumerate(block):
                batch = data.batch(data.val, np.array([window]))
                losses.append(float(policy(batch, noise[place], steps[place])))
    found = validate(policy, data, 0, World(), NEVER)
    assert found == {"val_loss": pytest.approx(np.mean(losses), rel=1e-5)}


def test_ranks_share_validation_without_counting_a_window_twice(policy, data, monkeypatch):
    from langsteer.training import validation

    alone = validate(policy, data, 32, World(), NEVER)
    sums: dict[int, list[torch.Tensor]] = {}

    def collect(values):
        sums.setdefault(len(values), []).append(values.clone())
        return values + torch.finfo(torch.float64).tiny  # a rank without a block has a sum of 0

    monkeypatch.setattr(validation, "all_sum", collect)
    for rank in range(3):
        validate(policy, data, 32, World(rank, rank, 3), NEVER)
    loss, count = torch.stack(sums[2]).sum(dim=0).tolist()
    assert count == len(data.val)
    assert loss / count == pytest.approx(alone["val_loss"], rel=1e-9)


def test_errors_of_actions_are_in_millimetres_degrees_and_shares(policy, data, monkeypatch):
    def known(obs, generator=None):
        first = POLICY.n_obs_steps - 1
        actions = truth["action"][:, first : first + POLICY.n_action_steps].clone()
        actions[..., 0] += 0.5  # of 20 mm
        actions[..., 4] -= 1.0  # of 0.05 rad
        actions[:, :2, 6] *= -1  # two of eight steps
        return {"action": actions}

    chosen = np.linspace(0, len(data.val) - 1, 8).astype(np.int64)
    truth = data.batch(data.val, chosen)
    monkeypatch.setattr(policy, "predict_action", known)
    numbers = validate(policy, data, 8, World(), NEVER)
    assert numbers["val_position_error_mm"] == pytest.approx(10.0, rel=1e-5)
    assert numbers["val_rotation_error_deg"] == pytest.approx(np.degrees(0.05), rel=1e-5)
    assert numbers["val_gripper_accuracy"] == pytest.approx(0.75)


def test_trainer_validates_the_averaged_weights(training):
    training.here("training.experiment_name=run")
    content = training.latest("run")
    data = CalvinData(
        open_store(training.store),
        DP3Config.from_dict(content["config"]["policy"]),
        TrainingDatasetConfig(),
        seed=42,
    )
    losses = {}
    for part in ("model", "ema"):
        policy = DP3(data.policy, content["pipeline"])
        policy.load_state_dict(content[part])
        losses[part] = validate(policy, data, 8, World(), NEVER)["val_loss"]
    assert content["metrics"]["val_loss"] == losses["ema"] != losses["model"]


def test_validation_is_left_at_the_block_where_the_request_comes(policy, data, monkeypatch):
    stop, losses = StopRequest(), []
    compute = policy.compute_loss

    def counted(*arguments):
        losses.append(compute(*arguments))
        stop.requested = len(losses) == 1
        return losses[-1]

    monkeypatch.setattr(policy, "compute_loss", counted)
    with pytest.raises(Stopped):
        validate(policy, data, 16, World(), stop)
    assert len(losses) == 1
    stop.requested = False
    validate(policy, data, 16, World(), stop)
    assert len(losses) - 1 == -(-len(data.val) // BLOCK) > 1
