"""What is computed faster is the same function, values and gradients."""

import shutil
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from langsteer.policies.dp3 import DP3, DP3Config, Normalizer, convolution, encoder, products
from langsteer.policies.dp3.encoder import PointEncoder

DEFAULT = convolution.LIBRARY_BELOW
assert_close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-4)
# The fixture of this module is the same for all examples.
SETTINGS = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
sizes = st.integers(1, 12)


def values_and_gradients(function, *inputs):
    """A result and the gradients of a weighted sum of it, first for ``inputs``."""
    for tensor in inputs:
        tensor.grad = None
    out = function()
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return [out.detach(), *(tensor.grad for tensor in inputs)]


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        assert_close(first, second)


@pytest.fixture(autouse=True)
def products_of_any_size(monkeypatch):
    monkeypatch.setattr(convolution, "LIBRARY_BELOW", 0)


def test_large_convolutions_are_products_and_small_ones_are_not(monkeypatch):
    monkeypatch.setattr(convolution, "LIBRARY_BELOW", DEFAULT)
    x = torch.zeros(1, 512, 16)
    assert convolution.multiplies(x, torch.zeros(512, 512, 5))
    assert not convolution.multiplies(x, torch.zeros(64, 512, 1))
    assert not convolution.multiplies(x.to("meta"), torch.zeros(512, 512, 5))


@SETTINGS
@given(rows=sizes, dim_in=sizes, dim_out=sizes, lead=sizes)
def test_products_are_those_of_pytorch(rows, dim_in, dim_out, lead):
    x = torch.randn(lead, rows, dim_in, requires_grad=True)
    layer = products.Linear(dim_in, dim_out)
    inputs = (x, layer.weight, layer.bias)
    assert products.uses_onednn(x)
    expected = values_and_gradients(lambda: functional.linear(*inputs), *inputs)
    assert_same(values_and_gradients(lambda: layer(x), *inputs), expected)
    with torch.no_grad():
        assert_close(layer(x), expected[0])


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_products_can_be_compiled():
    x, layer = torch.randn(3, 4, requires_grad=True), products.Linear(4, 5)
    inputs = (x, layer.weight, layer.bias)
    compiled = torch.compile(layer)
    expected = values_and_gradients(lambda: layer(x), *inputs)
    assert_same(values_and_gradients(lambda: compiled(x), *inputs), expected)


def test_a_product_of_another_precision_is_left_to_pytorch():
    x, layer = torch.randn(3, 4, dtype=torch.float64), products.Linear(4, 5).double()
    assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))


@SETTINGS
@given(
    batch=st.integers(1, 4),
    dim_in=sizes,
    dim_out=sizes,
    length=st.sampled_from([4, 8, 16]),
    shape=st.sampled_from([(5, 1, 2), (3, 2, 1), (1, 1, 0), (3, 1, 1)]),
)
def test_a_convolution_as_a_product_is_the_convolution(batch, dim_in, dim_out, length, shape):
    kernel, stride, padding = shape
    layer = convolution.Conv(dim_in, dim_out, kernel, stride, padding)
    x = torch.randn(batch, dim_in, length, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    expected = values_and_gradients(
        lambda: functional.conv1d(*inputs, stride=stride, padding=padding), *inputs
    )
    assert_same(values_and_gradients(lambda: layer(x), *inputs), expected)


@SETTINGS
@given(batch=st.integers(1, 4), dim=sizes, length=st.sampled_from([1, 4, 8]))
def test_a_transposed_convolution_as_a_product_is_that_convolution(batch, dim, length):
    layer = convolution.UpConv(dim)
    x = torch.randn(batch, dim, length, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    expected = values_and_gradients(
        lambda: functional.conv_transpose1d(*inputs, stride=2, padding=1), *inputs
    )
    assert_same(values_and_gradients(lambda: layer(x), *inputs), expected)


@pytest.mark.parametrize("points", [1, 50, 128])
@pytest.mark.parametrize("by_frames", [True, False])
@pytest.mark.parametrize("coloured", [True, False])
def test_gradients_through_the_winning_points_are_all_gradients(
    points, by_frames, coloured, monkeypatch
):
    monkeypatch.setattr(encoder, "goes_by_frames", lambda clouds: by_frames)
    torch.manual_seed(0)
    point_encoder = PointEncoder(DP3Config(point_widths=(16, 32), use_pc_color=coloured))
    clouds = torch.randn(6, points, 6 if coloured else 3)
    clouds[1, points // 2 :] = clouds[1, 0]  # equal points share a maximum
    weights = list(point_encoder.parameters())
    expected = values_and_gradients(
        lambda: point_encoder.final_projection(point_encoder.mlp(clouds).amax(dim=1)), *weights
    )
    found = values_and_gradients(lambda: point_encoder(clouds), *weights)
    for first, second in zip(found, expected, strict=True):
        torch.testing.assert_close(first, second, atol=2e-6, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(point_encoder(clouds), expected[0], atol=2e-6, rtol=1e-5)


def test_a_cloud_on_its_way_to_the_network_may_ask_for_its_gradient():
    torch.manual_seed(0)
    point_encoder = PointEncoder(DP3Config(point_widths=(16, 32)))
    clouds = torch.randn(2, 64, 3, requires_grad=True)
    plain = values_and_gradients(
        lambda: point_encoder.final_projection(point_encoder.mlp(clouds).amax(dim=1)), clouds
    )
    assert_same(values_and_gradients(lambda: point_encoder(clouds), clouds), plain)


def test_a_training_step_by_products_is_the_step_by_library_calls(monkeypatch):
    config = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16))
    torch.manual_seed(0)
    policy = DP3(config)
    robot_obs, actions = torch.randn(40, 15).numpy(), torch.randn(40, 7).numpy()
    policy.set_normalizer(Normalizer.fit(config, robot_obs, actions))
    obs = {"point_cloud": torch.randn(4, 2, 64, 3), "agent_pos": torch.randn(4, 2, 15)}
    batch = {"obs": obs, "action": torch.randn(4, 16, 7)}
    noise, timesteps = torch.randn(4, 16, 7), torch.tensor([0, 20, 60, 99])

    def gradients():
        policy.zero_grad()
        policy.compute_loss(batch, noise=noise, timesteps=timesteps).backward()
        found = [parameter.grad for parameter in policy.parameters()]
        assert all(gradient is not None for gradient in found)
        return found

    fast = gradients()
    monkeypatch.setattr(convolution, "multiplies", lambda x, weight: False)
    monkeypatch.setattr(products, "uses_onednn", lambda x: False)
    assert_same(fast, gradients())
