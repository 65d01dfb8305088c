"""DP3: from two observation frames to the next eight actions, by diffusion.

Example, on a CPU in a second::

    policy = DP3(DP3Config(down_dims=(32, 64, 128)))
    policy.set_normalizer(Normalizer.fit(policy.config, robot_obs, rel_actions))
    loss = policy({"obs": {"point_cloud": clouds, "agent_pos": states}, "action": actions})
    actions = policy.predict_action({"point_cloud": clouds, "agent_pos": states})["action"]

Legend of shapes: B batch, P points, N samples per observation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from langsteer.data.pointcloud import ObservationPipeline
from langsteer.errors import UserError
from langsteer.policies.dp3.config import DP3Config
from langsteer.policies.dp3.ddim import (
    DenoisingStep,
    Diffusion,
    Guidance,
    StepPlan,
    ddim_previous,
)
from langsteer.policies.dp3.encoder import ObservationEncoder
from langsteer.policies.dp3.graphs import DenoiserGraphs
from langsteer.policies.dp3.language import LanguageCondition
from langsteer.policies.dp3.normalizer import ROBOT_OBS_DIM, TCP_POSITION, Normalizer
from langsteer.policies.dp3.unet import FilmUNet, Modulations
from langsteer.policies.precision import Precision

Observation = Mapping[str, Tensor]
_FORESIGHT_SCALE = 0.05
"""Metres, about a block's size."""


class DP3(nn.Module):
    """The policy, with its normaliser and the parameters of the observation pipeline.

    Observations are in raw units: ``point_cloud`` (B, 2, P, 3) float32 metres, world frame (with
    colours in [0, 1] behind for an XYZRGB policy), ``agent_pos`` (B, 2, 15) float32 ``robot_obs``;
    for a policy with language also ``language`` (B, E) float32, a sentence's embedding.

    Attributes:
        config: the choices it was built from.
        pipeline: the observation pipeline's parameters as plain values, or None if unknown.
        normalizer: see `set_normalizer`; not trained, and part of the state dict.
        precision: how it computes; not part of the state dict.
        graphs: if set, replay the denoiser's kernels, see `graphs.DenoiserGraphs`.
    """

    def __init__(self, config: DP3Config, pipeline: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        self.pipeline = None if pipeline is None else dict(pipeline)
        self.normalizer = Normalizer(config)
        self.obs_encoder = ObservationEncoder(config)
        condition_dim = self.obs_encoder.output_dim * config.n_obs_steps
        self.language = LanguageCondition(config) if config.language else None
        if self.language is not None:
            condition_dim += self.language.output_dim
        self.model = FilmUNet(config, condition_dim)
        self.diffusion = Diffusion(config)
        self.precision = Precision()
        self.graphs: DenoiserGraphs | None = None

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.normalizer.action.scale.device

    @property
    def calls_per_step(self) -> int:
        """Evaluations of the network in a denoising step, each for all samples at once."""
        return 2 if self.language is not None and self.language.guides else 1

    def compile_parts(self, **options: Any) -> None:  # noqa: ANN401 - of torch.compile
        """Compile the loss (`forward`) as one graph, and the denoiser of `predict_action`.

        Sizes are static: each size of a batch, a partial one included, is compiled when it first
        comes, and never again. Copy a module before, if at all.

        Args:
            options: of `torch.compile`.
        """
        self.compile(dynamic=False, fullgraph=True, **options)
        denoise = torch.compile(self.model.denoise, dynamic=False, fullgraph=True, **options)
        # The instance's own attribute hides the class's method.
        self.model.denoise = denoise  # type: ignore[method-assign]

    def set_normalizer(self, normalizer: Normalizer) -> None:
        """Copy fitted limits into the policy, onto its device."""
        self.normalizer.load_state_dict(normalizer.state_dict())

    def check_pipeline(self, other: ObservationPipeline) -> None:
        """Refuse clouds of another observation pipeline than the training's.

        Raises:
            UserError: with the differences, or if the policy does not know its pipeline.
        """
        if self.pipeline is None:
            raise UserError(
                "this policy does not know the observation pipeline that it was trained with; "
                "load it from a checkpoint, or set its `pipeline`"
            )
        ObservationPipeline.from_dict(self.pipeline).check_compatible(other)

    def forward(
        self,
        batch: Mapping[str, Any],
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
        generator: torch.Generator | None = None,
        withheld: Tensor | None = None,
    ) -> Tensor:
        """`compute_loss`, under the name that runs DistributedDataParallel's hooks."""
        return self.compute_loss(batch, noise, timesteps, generator, withheld)

    def encode(self, obs: Observation, sentences: Tensor | None = None) -> Tensor:
        """The network's condition (B, D) of an observation.

        Args:
            obs: of batch B.
            sentences: (B, E) in the place of the observation's; None takes its own.

        Raises:
            UserError: the observation has another shape than the policy's.
        """
        return self._look(obs, sentences)[0]

    def _look(self, obs: Observation, sentences: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`encode`, and what each head looks at in the present frame (B, heads, 3), metres."""
        self._check(obs)
        if self.language is None:
            return self._features(obs, None)
        told = obs["language"] if sentences is None else sentences
        features, looked_at = self._features(obs, told)
        return self.language.append(features, told), looked_at

    def _features(self, obs: Observation, sentences: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features (B, D) of the observation's frames, and what is looked at in the last one."""
        points, state = obs["point_cloud"], obs["agent_pos"]
        told = None
        if sentences is not None and self.language is not None:
            frames = sentences.repeat_interleave(state.shape[1], 0)
            told = frames * self.language.input_scale
        features, looked_at = self.obs_encoder(
            self.normalizer.point_cloud.normalize(points.flatten(0, 1)),
            self.normalizer.normalize_agent_pos(state.flatten(0, 1)),
            state.flatten(0, 1)[:, TCP_POSITION],
            told,
        )
        present = None if looked_at is None else looked_at.unflatten(0, (len(points), -1))[:, -1]
        return features.unflatten(0, (len(points), -1)).flatten(1), present

    def _check(self, obs: Observation) -> None:
        points, state = obs["point_cloud"], obs["agent_pos"]
        frames, width = self.config.n_obs_steps, self.config.point_dim
        count = self.pipeline["n_points"] if self.pipeline is not None else points.shape[-2]
        expected = (len(points), frames, count, width)
        if tuple(points.shape) != expected:
            raise UserError(
                f"point_cloud of shape {tuple(points.shape)}: this policy was trained on "
                f"{expected} (batch, frames, points, values per point); use the observation "
                "pipeline that its checkpoint holds"
            )
        if tuple(state.shape) != (len(points), frames, ROBOT_OBS_DIM):
            raise UserError(
                f"agent_pos of shape {tuple(state.shape)}: expected "
                f"{(len(points), frames, ROBOT_OBS_DIM)} (batch, frames, robot_obs)"
            )
        if self.language is not None:
            embedded = (len(points), self.config.language_dim)
            given = tuple(obs["language"].shape) if "language" in obs else None
            if given != embedded:
                raise UserError(
                    f"language of shape {given}: this policy was trained with sentence embeddings "
                    f"of shape {embedded} (batch, embedding)"
                )

    def compute_loss(
        self,
        batch: Mapping[str, Any],
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
        generator: torch.Generator | None = None,
        withheld: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the network's output over all steps of the horizon.

        With ``foresight`` a batch may have ``hand_ahead`` (B, len(FRAMES_AHEAD), 3), metres: its
        `foresight_loss` is added.

        The caller enters ``precision.products``, around the backward pass, too.

        Args:
            batch: ``{"obs": observation, "action": (B, horizon, 7) rel_actions}``.
            noise: (B * noise_draws, horizon, 7), draws of one sample in a row; drawn if None.
            timesteps: (B * noise_draws,) int64; drawn if None.
            generator: for the draws, on any device; torch's global one if None.
            withheld: (B,) bool, a mask of sentences to withhold in training mode; drawn if None.
        """
        # Some sentences are withheld: the same network learns to go without, for guidance.
        sentences = None
        if self.language is not None and self.training:
            sentences = self.language.withhold(batch["obs"]["language"], withheld, generator)
        # One pass of the encoder serves several draws of noise: it is the costly part.
        condition, looked_at = self._look(batch["obs"], sentences)
        clean = self.normalizer.action.normalize(batch["action"])
        draws = self.config.noise_draws
        if draws > 1:
            condition, clean = (
                condition.repeat_interleave(draws, 0),
                clean.repeat_interleave(draws, 0),
            )
        # The trainer gives noise and timesteps, drawn by step and window: a resume repeats them.
        if noise is None:
            noise = _normal(clean.shape, generator, clean.device)
        if timesteps is None:
            drawn_on = clean.device if generator is None else generator.device
            last, size = self.diffusion.num_train_timesteps, (len(clean),)
            timesteps = torch.randint(last, size, generator=generator, device=drawn_on)
            timesteps = timesteps.to(clean.device)
        # Noise the clean trajectory to its timestep, and let the network undo it.
        noisy = self.diffusion.add_noise(clean, noise, timesteps)
        network_input = self.diffusion.network_input(noisy, timesteps)
        with self.precision.autocast(self.device):
            output = self.model(network_input, timesteps, condition)
        target = self.diffusion.network_target(clean, noise, timesteps)
        # The loss is float32 in any precision: differences of bfloat16 would lose most digits.
        loss = functional.mse_loss(output.float(), target)
        if "hand_ahead" in batch:
            assert looked_at is not None  # DP3Config demands heads
            loss = loss + self.config.foresight * foresight_loss(looked_at, batch["hand_ahead"])
        return loss

    @torch.no_grad()
    def predict_action(
        self,
        obs: Observation,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        guidance: Guidance | None = None,
        samples_per_observation: int = 1,
    ) -> dict[str, Tensor]:
        """Sample trajectories for observations; each is encoded once, for any number of samples.

        Args:
            obs: observation of batch B.
            noise: (B * N, horizon, 7) initial noise, samples of one observation in a row.
            generator: draws the initial noise, on any device; torch's global one if None.
            guidance: may change each step's x0_hat (`ddim.Guidance`).
            samples_per_observation: N.

        Returns:
            ``action_pred`` (B * N, horizon, 7) and ``action`` (B * N, n_action_steps, 7), the part
            to execute: from the present step on. In units of ``rel_actions``.

        Raises:
            UserError: the policy has no normaliser, or the observation does not fit it.
        """
        if not self.normalizer.fitted:
            raise UserError(
                "this policy has no normalizer: load a checkpoint, or call set_normalizer"
            )
        with self.precision.products(self.device):
            return self._sampled(obs, noise, generator, guidance, samples_per_observation)

    def _sampled(
        self,
        obs: Observation,
        noise: Tensor | None,
        generator: torch.Generator | None,
        guidance: Guidance | None,
        samples_per_observation: int,
    ) -> dict[str, Tensor]:
        # The observation is encoded once, outside the loop: no step changes it.
        condition = self._sampling_condition(obs, samples_per_observation)
        samples = len(obs["agent_pos"]) * samples_per_observation
        shape = torch.Size((samples, self.config.horizon, self.config.action_dim))
        if noise is None:
            noise = _normal(shape, generator, condition.device)
        if noise.shape != shape:
            raise ValueError(f"noise of shape {tuple(noise.shape)}: expected {tuple(shape)}")
        # Pure noise becomes a trajectory, one noise level at a time.
        x = noise
        for plan, modulations in self._planned(condition):
            estimate = self._clean_estimate(x, plan, modulations)
            # Actions of the training data lie within [-1, 1]; the sampler stays there.
            x0_hat = estimate.clamp(-1, 1)
            # Steering happens here: it may move the clean estimate, at every noise level.
            if guidance is not None:
                step = self._step(x, plan, modulations, obs, samples_per_observation)
                x0_hat = guidance(x0_hat, step)
            # Step down: the clean estimate, with less of the same noise.
            x = ddim_previous(x, estimate, x0_hat, plan)
        trajectory = self.normalizer.action.unnormalize(x)
        # The horizon begins with the observed past. Execution begins with the present step.
        first = self.config.n_obs_steps - 1
        executed = trajectory[:, first : first + self.config.n_action_steps]
        return {"action": executed, "action_pred": trajectory}

    def _sampling_condition(self, obs: Observation, samples_per_observation: int) -> Tensor:
        """(B * N, D); with language guidance (2 * B * N, D), the latter half without sentences."""
        parts = [self.encode(obs)]
        if self.language is not None and self.language.guides:
            parts.append(self.encode(obs, torch.zeros_like(obs["language"])))
        return torch.cat([part.repeat_interleave(samples_per_observation, 0) for part in parts])

    def _planned(self, condition: Tensor) -> list[tuple[StepPlan, Modulations]]:
        """The sampler's steps with the network's modulations, computed for all steps at once."""
        steps = self.diffusion.steps()
        count, batch = len(steps), len(condition)
        timesteps = self.diffusion.sampled_timesteps
        with self.precision.autocast(condition.device):
            of_all = self.model.modulations(
                timesteps.repeat_interleave(batch), condition.repeat(count, 1)
            )
        per_step = [modulation.unflatten(0, (count, batch)).unbind(0) for modulation in of_all]
        return [(plan, [of[plan.index] for of in per_step]) for plan in steps]

    def _clean_estimate(self, x_t: Tensor, plan: StepPlan, modulations: Modulations) -> Tensor:
        network_input = self.diffusion.network_input(x_t, plan.timestep)
        guides = self.language is not None and self.language.guides
        # Classifier-free guidance: the batch twice, with sentences and without.
        if guides:
            network_input = network_input.repeat(2, 1, 1)
        output = self._denoised(network_input, modulations)
        if self.language is not None and guides:
            output = self.language.guide(output)
        return self.diffusion.clean_estimate(output, x_t, plan.timestep)

    def _denoised(self, network_input: Tensor, modulations: Modulations) -> Tensor:
        def denoise(x: Tensor, modulations: Modulations) -> Tensor:
            with self.precision.autocast(x.device):
                return self.model.denoise(x, modulations).float()

        if self.graphs is None or torch.is_grad_enabled():
            return denoise(network_input, modulations)
        return self.graphs.run(denoise, network_input, modulations)

    def _step(
        self, x_t: Tensor, plan: StepPlan, modulations: Modulations, obs: Observation, samples: int
    ) -> DenoisingStep:
        return DenoisingStep(
            plan=plan,
            x_t=x_t,
            obs=obs,
            samples_per_observation=samples,
            unnormalize=self.normalizer.action.unnormalize,
            normalize=self.normalizer.action.normalize,
            denoise=lambda x: self._clean_estimate(x, plan, modulations),
        )


def _normal(shape: torch.Size, generator: torch.Generator | None, device: torch.device) -> Tensor:
    drawn_on = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=drawn_on).to(device)


def foresight_loss(looked_at: Tensor, hand_ahead: Tensor) -> Tensor:
    """How far the first heads look beside the places of the hand in the future.

    The denoising loss alone teaches attention slowly, since its gradient is mostly noise. The hand
    mostly goes to the thing of the sentence next, and every recording tells it. Pseudo-Huber norm
    in units of `_FORESIGHT_SCALE`: a place in the air, explained by no point, pulls no harder than
    another.

    Args:
        looked_at: (B, heads, 3) metres.
        hand_ahead: (B, K, 3) metres, for the first K heads.

    Returns:
        The mean over batch and heads, a scalar.
    """
    gaps = (looked_at[:, : hand_ahead.shape[1]] - hand_ahead) / _FORESIGHT_SCALE
    return ((1 + gaps.square().sum(dim=-1)).sqrt() - 1).mean()
