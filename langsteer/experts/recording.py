"""Episodes: run skills in the simulator and keep each frame's data for a CALVIN dataset.

Example::

    performer = Performer(env, images=False)
    episode = performer.single("open_drawer", np.random.default_rng(0))
    episode.achieved       # ('open_drawer',), or () if the oracle did not see it done
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from langsteer.calvin.benchmark import initial_states
from langsteer.calvin.cameras import GRIPPER_CAMERA, STATIC_CAMERA
from langsteer.calvin.tasks import SceneInfo, achieved
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.experts.annotate import Window
from langsteer.experts.articulated import ACROSS, DOWN
from langsteer.experts.blocks import held_colour, place_on_table
from langsteer.experts.library import make_skill
from langsteer.experts.motion import OPEN, Hand, Move
from langsteer.experts.play import choose_task
from langsteer.experts.skill import Plan, Scene, Skill
from langsteer.experts.starts import benchmark_robot_obs, sample_scene, sample_start
from langsteer.experts.view import View, read_layout

TASK_STEPS = 240
"""Control steps after which a skill gives up; the benchmark gives 360."""

_TEMPO = (0.85, 1.2)
_TREMOR = (0.0002, 0.0008)
_WANDER_LOW, _WANDER_HIGH = np.array([-0.12, -0.1, -0.06]), np.array([0.12, 0.08, 0.08])
_DRIFT_LOW, _DRIFT_HIGH = np.array([-0.15, -0.3, 0.55]), np.array([0.25, -0.12, 0.68])
_WANDERING = 0.3
"""Probability that a chain wanders about before it goes on."""

_CUT_SHORT = 0.7
"""Probability that a task of instructed play ends soon after it is done."""
_STEPS_AFTER_SUCCESS = 9
_DRIVEN = 0.8
"""Probability that the driver of instructed play begins a task."""
DRIVEN_STEPS = (8, 160)

Images = dict[str, np.ndarray]


class Driver(Protocol):
    """Acts in an environment as told: a policy with mistakes worth learning from."""

    @property
    def pipeline(self) -> ObservationPipeline:
        """How its clouds must be made."""

    def begin(self, task: str, env: CalvinEnv, rng: np.random.Generator) -> None:
        """Take up a task in this environment, and forget what came before."""

    def act(self, env: CalvinEnv) -> np.ndarray:
        """The next relative action (7,) of this environment."""


@dataclass
class Episode:
    """One recording of T control steps.

    Attributes:
        robot_obs: T + 1 arrays (15,).
        scene_obs: T + 1 arrays (24,).
        infos: T + 1 snapshots for the oracle.
        images: T + 1 sets of images under CALVIN's names; empty if none were asked for.
        attempted: tasks in the order of the attempts.
        achieved: those the oracle saw done, each against its own start.
        shown: windows of an expert's whole task, from its beginning to its end.
    """

    robot_obs: list[np.ndarray] = field(default_factory=list)
    scene_obs: list[np.ndarray] = field(default_factory=list)
    infos: list[SceneInfo] = field(default_factory=list)
    images: list[Images] = field(default_factory=list)
    attempted: list[str] = field(default_factory=list)
    achieved: list[str] = field(default_factory=list)
    shown: list[Window] = field(default_factory=list)

    @property
    def n_frames(self) -> int:
        """Its frames in a dataset: all but the last, as in CALVIN."""
        return len(self.robot_obs) - 1


class Performer:
    """Lets experts act in one environment and records them."""

    def __init__(
        self,
        env: CalvinEnv,
        images: bool,
        colours: bool = False,
        driver: Driver | None = None,
    ) -> None:
        """Take over an environment.

        Args:
            env: to act in.
            images: whether frames are drawn.
            colours: whether the depth renderer draws colours, too.
            driver: begins tasks of instructed play; an expert finishes them.
        """
        self.env = env
        self.layout = read_layout(env)
        self._images, self._colours = images, colours
        self._driver = driver
        self._episode = Episode()
        self._recording = False

    def single(self, task: str, rng: np.random.Generator) -> Episode:
        """One task from a start like the benchmark's, with its preparations.

        If a block must be in hand, lifting it belongs to the recording.
        """
        before, hand = self._begin_task(task, rng)
        for step in (*before, task):
            if not self.attempt(step, hand, rng):
                break
        return self._episode

    def prepare(self, task: str, rng: np.random.Generator) -> None:
        """Bring the environment to a start of ``task``, as `single` does, for others to act."""
        before, hand = self._begin_task(task, rng)
        for step in before:
            self.attempt(step, hand, rng)

    def _begin_task(self, task: str, rng: np.random.Generator) -> tuple[tuple[str, ...], Hand]:
        """A start for ``task``, and the tasks to do first."""
        start = sample_start(task, self.layout, rng)
        return start.before, self._begin(start.scene_obs, rng)

    def play(
        self, tasks: Sequence[str], length: int, rng: np.random.Generator, instructed: bool = False
    ) -> Episode:
        """A chain of tasks, each feasible after the one before, from a random start.

        It goes on after a failure, as people do, and ends early if nothing is feasible any more.

        Args:
            tasks: to choose from.
            length: tasks of the chain.
            rng: of everything drawn at random.
            instructed: end most tasks soon after the oracle sees them done, like the long-horizon
                benchmark, and let the driver, if there is one, begin some of them.
        """
        states = initial_states()
        scene = sample_scene(states[rng.integers(len(states))], self.layout, rng)
        hand = self._begin(scene, rng)
        for _ in range(length):
            # Look anew: the last task may have failed, or moved other things than its own.
            view = self._view()
            task = choose_task(view, tasks, self._episode.attempted, rng)
            # Nothing can be done with a block in hand and no place for it: put it down.
            if task is None and held_colour(view) is not None:
                self._perform(Skill("put down", place_on_table, hand, rng))
                task = choose_task(self._view(), tasks, self._episode.attempted, rng)
            if task is None:
                break
            # Wander now and then: a policy must also begin tasks away from the places they end at.
            if held_colour(view) is None and rng.uniform() < _WANDERING:
                self._perform(Skill("wander", _drift, hand, rng))
            # Plain play shows whole motions. A policy told its tasks gets the next one in the
            # middle of a motion, so instructed play ends tasks there.
            if not instructed:
                self.attempt(task, hand, rng)
            elif self._driver is None or rng.uniform() >= _DRIVEN:
                self.attempt(task, hand, rng, self._steps_after_success(rng))
            else:
                hand = self._take_over(self._driver, task, rng)
        return self._episode

    def _steps_after_success(self, rng: np.random.Generator) -> int | None:
        """Steps from a task's success to its end; None lets the skill end by itself."""
        return int(rng.integers(_STEPS_AFTER_SUCCESS)) if rng.uniform() < _CUT_SHORT else None

    def _take_over(self, driver: Driver, task: str, rng: np.random.Generator) -> Hand:
        """Let the driver try a task for a while; if it is not done then, an expert does it.

        Learning from such states is DAgger (Ross et al. 2011) by takeover (HG-DAgger, Kelly et
        al. 2019). The driver's frames are recorded, but only the expert's count as showing the
        task. Both begin at the same snapshot of the oracle.
        """
        before = self.env.info()
        driver.begin(task, self.env, rng)
        for _ in range(int(rng.integers(*DRIVEN_STEPS))):
            self.env.step(driver.act(self.env))
            self._keep_frame()
            if achieved(before, self.env.info(), task):
                return self._new_hand(rng)
        hand = self._new_hand(rng)
        self.attempt(task, hand, rng, self._steps_after_success(rng), before)
        return hand

    def _view(self) -> View:
        return View(self.layout, self.env.robot_obs, self.env.scene_obs)

    def attempt(
        self,
        task: str,
        hand: Hand,
        rng: np.random.Generator,
        steps_after_success: int | None = None,
        before: SceneInfo | None = None,
    ) -> bool:
        """Let the expert try a task; returns whether the oracle saw it done at some step.

        Args:
            task: to be done.
            hand: the commanded pose.
            rng: of the expert's choices.
            steps_after_success: how long it goes on after the task is done; None to its end.
            before: the oracle's snapshot of the start; None takes the present one.
        """
        first = self._episode.n_frames
        self._episode.attempted.append(task)
        skill = make_skill(task, hand, rng)
        done = self._perform(skill, task, before or self.env.info(), steps_after_success)
        if done:
            self._episode.achieved.append(task)
            self._episode.shown.append(Window(task, first, self._episode.n_frames))
        return done

    def _perform(
        self,
        skill: Skill,
        task: str | None = None,
        before: SceneInfo | None = None,
        steps_after_success: int | None = None,
    ) -> bool:
        done = False
        for _ in range(TASK_STEPS):
            # A task cut short ends some steps after its success, wherever the hand is then.
            if done and steps_after_success is not None:
                if steps_after_success == 0:
                    break
                steps_after_success -= 1
            # The skill sees the true state, and answers with one relative action.
            action = skill.act(self._view())
            if action is None:
                break
            self.env.step(action)
            if self._recording:
                self._keep_frame()
            # After every step, as in an evaluation: success may last for one step only.
            if task is not None and before is not None and not done:
                done = achieved(before, self.env.info(), task)
        return done

    def _begin(self, scene_obs: np.ndarray, rng: np.random.Generator) -> Hand:
        """Start recording in a scene, with the hand at rest somewhere near its usual place.

        The hand gets there before the recording, and the blocks come to rest. Then the simulator is
        reset to just that state, so a replay can begin as the recording did.
        """
        self._reset(benchmark_robot_obs(), scene_obs)
        self._perform(Skill("wander", _wander, self._new_hand(rng), rng))
        self._reset(self.env.robot_obs, self.env.scene_obs)
        self._episode = Episode()
        self._recording = True
        self._keep_frame()
        return self._new_hand(rng)

    def _reset(self, robot_obs: np.ndarray, scene_obs: np.ndarray) -> None:
        self._recording = False
        self.env.reset(options={"robot_obs": robot_obs, "scene_obs": scene_obs})

    def _new_hand(self, rng: np.random.Generator) -> Hand:
        pose = self.env.commanded_pose
        return Hand(
            pose[:3], pose[3:6], rng, tempo=rng.uniform(*_TEMPO), tremor=rng.uniform(*_TREMOR)
        )

    def _keep_frame(self) -> None:
        self._episode.robot_obs.append(self.env.robot_obs)
        self._episode.scene_obs.append(self.env.scene_obs)
        self._episode.infos.append(self.env.info())
        if self._images:
            self._episode.images.append(draw(self.env, self._colours))


def _wander(scene: Scene) -> Plan:
    """Drift to some place near by, hand open, and come to rest."""
    offset = scene.rng.uniform(_WANDER_LOW, _WANDER_HIGH)
    x, y, z = (scene.hand.position + offset).tolist()
    yield Move((x, y, z), gripper=OPEN, radius=0.005, wait=12)


def _drift(scene: Scene) -> Plan:
    """Go somewhere over the table, to look around."""
    x, y, z = scene.rng.uniform(_DRIFT_LOW, _DRIFT_HIGH).tolist()
    yield Move((x, y, z), (DOWN, 0.0, ACROSS), gripper=OPEN, radius=0.03)


def draw(env: CalvinEnv, colours: bool) -> Images:
    """The images of a frame under CALVIN's names.

    Args:
        env: its cameras are drawn.
        colours: False leaves the colour images of the depth renderer black, and is faster.
    """
    images: Images = {}
    for name, camera in (("static", STATIC_CAMERA), ("gripper", GRIPPER_CAMERA)):
        if env.renderer_name == "depth" and not colours:
            images[f"depth_{name}"] = env.render_depth(name)
            images[f"rgb_{name}"] = np.zeros((camera.height, camera.width, 3), np.uint8)
        else:
            images[f"rgb_{name}"], images[f"depth_{name}"] = env.render_camera(name)
    return images
