"""A policy in its simulator, steered as its configuration says.

Example::

    player = open_player(settings)
    player.env.reset(seed=0)
    run = player.play("open_drawer", "pull the drawer open", seed=0, goal="open_drawer")
    run.success, run.steps

Only a checkpoint needs PyTorch; it is imported then.
"""

import functools
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from langsteer.calvin.benchmark import STEPS_PER_TASK
from langsteer.errors import UserError
from langsteer.evaluation.rollout import Actor, Elsewhere, Judge, TaskRun, run_task
from langsteer.evaluation.run import EnvSettings, PlaySettings, PolicySettings
from langsteer.evaluation.video import Film
from langsteer.steering.blocks import KnownScene, OccludedError
from langsteer.steering.config import SteeringConfig
from langsteer.steering.language import make_reader

if TYPE_CHECKING:
    from langsteer.data.pointcloud import ObservationPipeline
    from langsteer.envs.calvin_env import CalvinEnv
    from langsteer.policies.agent import Agent
    from langsteer.serving.actor import RemoteActor
    from langsteer.steering.demonstrations import DemonstrationLibrary
    from langsteer.steering.sight import Look
    from langsteer.steering.steerer import Steerer

UNSTEERED = SteeringConfig()


class Seeing(Protocol):
    """The part of an actor an environment needs."""

    sees_colours: bool

    @property
    def pipeline(self) -> "ObservationPipeline":
        """How its clouds must be made."""


class Player:
    """An agent in an environment, with its steering.

    Args:
        env: the simulator.
        agent: who acts; only an `Agent` can be steered.
        steering: how.
        tells: whether the agent is told the instruction; one that follows sentences then does what
            it likes to do.
    """

    def __init__(
        self,
        env: "CalvinEnv",
        agent: Actor,
        steering: SteeringConfig = UNSTEERED,
        tells: bool = True,
    ) -> None:
        self.env, self.agent, self.steering, self.tells = env, agent, steering, tells

    def play(
        self,
        task: str,
        instruction: str,
        seed: int,
        max_steps: int = STEPS_PER_TASK,
        goal: str | None = None,
        video: Path | None = None,
        judge: Judge | None = None,
    ) -> TaskRun:
        """Try a task from the environment's present state.

        Args:
            task: for the oracle to judge.
            instruction: the words for it.
            seed: of all noise.
            max_steps: control steps at most.
            goal: the task to steer towards; None leaves the policy alone.
            video: an MP4 to film to.
            judge: instead of the oracle.

        Raises:
            UserError: the steering knows no way to the goal from here.
        """
        # The steerer looks at the scene as it is now. Without a goal nothing steers.
        steerer, unsteered = None, None
        if goal and self.steering.steers:
            try:
                steerer = begun_steerer(self.steering, self.env, goal, seed)
            except OccludedError as error:  # of one start in many; the result keeps it
                unsteered = str(error)
        if steerer is None:
            self.agent.reset(seed)
        else:
            _as_agent(self.agent).reset(seed, steerer.predict)
        # A policy with language hears the sentence, steered or not; the others ignore it.
        self.agent.instruct(instruction if self.tells else None)
        film = None if video is None else Film(self.caption(task, instruction, goal))
        look = None if steerer is None else functools.partial(show, steerer)
        run = run_task(self.env, self.agent, task, max_steps, film, judge, look)
        run.unsteered = unsteered
        if film is not None and video is not None:
            film.write(video, run.outcome)
        # The run keeps the steering's cost beside its success: guidance is not free.
        if steerer is not None:
            run.denoiser_calls = steerer.calls.denoiser
            run.gradient_calls = steerer.calls.gradients
            if steerer.first_trace is not None:
                run.first_paths = steerer.first_trace.paths[..., :3]
        return run

    def caption(self, task: str, instruction: str, goal: str | None = None) -> str:
        """The words given to the policy, for a video or a report: the sentence, or nothing.

        Args:
            task: for the oracle to judge.
            instruction: the words for it.
            goal: the task to steer towards; None leaves the policy alone.
        """
        # A policy of another kind need not say whether it reads; it hears the sentence.
        is_told = self.tells and getattr(self.agent, "reads_sentences", True)
        if is_told or (goal and self.steering.steers):
            return f"\u201c{instruction}\u201d"
        return f"{task}; the policy is told nothing"

    def close(self) -> None:
        """Close the environment, and the connection of an actor elsewhere."""
        self.env.close()
        if isinstance(self.agent, Elsewhere):
            self.agent.close()


def begun_steerer(steering: SteeringConfig, env: "CalvinEnv", goal: str, seed: int) -> "Steerer":
    """A steerer towards a task, from the environment's present state.

    Args:
        steering: how.
        env: the simulator.
        goal: the task.
        seed: of the steering's own noise.

    Raises:
        OccludedError: the task's block is not seen.
        UserError: the steering knows no way to the goal from here.
    """
    from langsteer.steering.steerer import Steerer

    steerer = Steerer(steering, open_demonstrations(steering))
    known = KnownScene(env.scene_obs, env.block_names)
    layout, look = None, None
    if steering.points:
        from langsteer.experts.view import read_layout

        layout, look = read_layout(env), look_at(env)
    steerer.begin(goal, env.commanded_pose, seed, known, layout, look)
    return steerer


def look_at(env: "CalvinEnv") -> "Look":
    """What both cameras show now, in colour and depth."""
    from langsteer.steering.sight import CAMERAS, Look

    return Look.of(env.observe(cameras=CAMERAS), env.pipeline.pixel_centre)


def show(steerer: "Steerer", env: "CalvinEnv") -> None:
    """Let a steerer see, where it makes a difference: colours are drawn for nobody else."""
    if steerer.wants_look:
        steerer.show(look_at(env))


def _as_agent(actor: Actor) -> "Agent":
    from langsteer.policies.agent import Agent

    if not isinstance(actor, Agent):
        raise UserError("only a diffusion policy can be steered; use steering=none")
    return actor


def open_player(settings: PlaySettings, control: bool = False) -> Player:
    """A checkpoint, or a policy elsewhere, in the simulator, as an evaluation's settings say.

    Args:
        settings: of the evaluation.
        control: let the checkpoint's network act untrained.

    Raises:
        UserError: a setting is wrong, the environment cannot make the policy's clouds, or its
            server is missing.
    """
    if settings.policy.url is not None:
        remote = open_remote(settings.policy)
        return Player(open_env(settings.env, remote), remote)
    from langsteer.policies.agent import Agent, load_agent
    from langsteer.policies.cpu_threads import choose_threads, describe_place
    from langsteer.policies.loading import checked_path, device_name
    from langsteer.policies.untrained import blank_network, untrained

    one_thread_of_many()
    policy, device = settings.policy, device_name(settings.device)
    path = checked_path(policy.ckpt_path)
    agent = load_agent(path, device, policy.use_ema, settings.precision)
    if control:
        agent = Agent(untrained(agent.policy))
    elif policy.blank:
        agent = Agent(blank_network(agent.policy))
    choose_threads(agent.policy, agent.policy.device, os.environ)
    if multiprocessing.parent_process() is None:
        print(f"policy on {describe_place(agent.policy.device)}", file=sys.stderr)
    return Player(open_env(settings.env, agent), agent, settings.steering, policy.told)


def open_remote(policy: PolicySettings) -> "RemoteActor":
    """The policy at ``policy.url``.

    Raises:
        UserError: no server answers, or its description makes no sense.
    """
    from langsteer.serving.actor import RemoteActor
    from langsteer.serving.messages import Offer

    remote = policy.connect()
    offer = Offer.from_metadata({**remote.metadata, **policy.said()})
    return RemoteActor(remote, offer, policy.action_horizon)


def one_thread_of_many() -> None:
    """Give a worker process one thread: processes on all cores slow each other down."""
    import torch

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)


def open_env(env: EnvSettings, agent: Seeing) -> "CalvinEnv":
    """An environment with the clouds of an agent's training; raises `UserError` if it cannot."""
    from langsteer.envs.calvin_env import CalvinEnv

    opened = CalvinEnv(
        scene=env.scene,
        assets_path=env.assets_path,
        renderer=env.renderer,
        pipeline=agent.pipeline,
        led_reset=env.led_reset,
    )
    agent.pipeline.check_compatible(opened.pipeline)
    return opened


def steered_tasks(
    steering: SteeringConfig, instruction: str | None, tasks: Sequence[str], scene: str
) -> tuple[str, ...]:
    """The tasks asked for; steering to each of them is possible.

    With steering, an instruction in free words chooses the task; others do not count. Where a point
    is given by hand, no words are read.

    Raises:
        UserError: the instruction is unclear, or the steering has no demonstration of a task, or
            knows no places for it in the scene.
    """
    if not steering.steers or steering.point is not None:
        return tuple(tasks)
    if instruction is not None:
        tasks = [make_reader(steering.encoder, steering.plugin)(instruction).task]
    require_steerable(steering, tasks, scene)
    return tuple(tasks)


def require_steerable(steering: SteeringConfig, tasks: Sequence[str], scene: str) -> None:
    """Raise `UserError` if a steering cannot head for one of the tasks in a scene."""
    from langsteer.steering import steerer

    for task in tasks:
        steerer.require_steerable(steering, task, open_demonstrations(steering), scene)


def open_demonstrations(steering: SteeringConfig) -> "DemonstrationLibrary | None":
    """The demonstrations of a steering, read once in a process.

    Raises:
        UserError: there are none.
    """
    if not (steering.steers and steering.reference):
        return None
    assert steering.demonstrations is not None  # SteeringConfig demands them
    return _library(steering.demonstrations)


@functools.lru_cache(maxsize=1)
def _library(path: str) -> "DemonstrationLibrary":
    from langsteer.steering.demonstrations import open_library

    return open_library(Path(path))
