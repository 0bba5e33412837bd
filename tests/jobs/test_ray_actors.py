"""Jobs by actors of Ray, which are threads here; by Ray itself: test_ray.py."""

import pickle
import signal
import socket
import sys

import pytest
from job_inputs import contents, picture, pictures
from saved_model import saved
from threads_as_ray import Ray
from told_actors import Deadly, OneDevice

import siglip_jax
from siglip_jax.cli.main import main
from siglip_jax.cli.options.model import ModelLoader
from siglip_jax.data.error_share import ErrorShare
from siglip_jax.data.failures import SettingError
from siglip_jax.data.item import Item
from siglip_jax.jobs import embed, score
from siglip_jax.jobs.entry import Entry
from siglip_jax.jobs.ray_cluster import places
from siglip_jax.jobs.ray_records import RayRecords
from siglip_jax.jobs.shard_actor import Report
from siglip_jax.jobs.work import Work

pytestmark = pytest.mark.usefixtures("compiled_once")
SHARDS, SIZE = 7, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def ray(monkeypatch):
    ray = Ray()
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


ITEMS = [Item(f"{i:02d}", b"hello" if i == 5 else picture(i, 20 + i)) for i in range(SHARDS * SIZE)]


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """What this process writes by itself."""
    folder = tmp_path_factory.mktemp("whole")
    source = Deadly(ITEMS, SIZE, folder, {})
    assert embed(source, folder / "out", model=OneDevice(model), max_error_share=0.5).finished
    return contents(folder / "out")


def by_actors(model, tmp_path, deaths=None, slow=0.0, **options):
    (tmp_path / "deaths").mkdir(exist_ok=True)
    source = Deadly(ITEMS, SIZE, tmp_path / "deaths", deaths or {}, slow=slow)
    chosen = {"engine": "ray", "max_error_share": 0.5, **options}
    return embed(source, tmp_path / "out", model=OneDevice(model), **chosen)


def test_actors_write_what_one_process_writes(ray, model, whole, tmp_path):
    told = []
    result = by_actors(model, tmp_path, report=told.append)
    assert (result.finished, result.code, result.errors) == (True, 0, 1)
    assert contents(tmp_path / "out") == whole
    assert len(ray.begun) == 2 and ray.begun[0].options["num_cpus"] == 1
    assert result.run["items"] == SHARDS * SIZE and result.run["bottleneck"]
    assert told[-1].done == told[-1].total == SHARDS * SIZE and told[-1].errors == 1
    assert by_actors(model, tmp_path).already


def test_a_job_goes_on_by_other_means(ray, model, whole, tmp_path):
    by_actors(model, tmp_path)
    for shard in (2, 5):
        (tmp_path / f"out/ledger/{shard:05d}.json").unlink()
    (tmp_path / "out/summary.json").unlink()
    assert by_actors(model, tmp_path, engine=None).run["items"] == 2 * SIZE
    assert contents(tmp_path / "out") == whole
    (tmp_path / "out/data/00004.parquet").unlink()
    assert by_actors(model, tmp_path).run["items"] == SIZE
    assert contents(tmp_path / "out") == whole


def test_shards_of_an_actor_that_died_are_done_by_another(ray, model, whole, tmp_path):
    with pytest.warns(UserWarning, match=r"is lost, .* \(on 10.0.0.7: Its process was killed\)"):
        result = by_actors(model, tmp_path, {1: 1, 4: 2})
    assert result.finished and contents(tmp_path / "out") == whole
    assert len(ray.begun) == 5


def test_a_shard_that_ends_every_actor_ends_the_job(ray, model, whole, tmp_path):
    with pytest.warns(UserWarning, match="is lost"), pytest.raises(ValueError) as raised:
        by_actors(model, tmp_path, {3: 9})
    assert str(raised.value).startswith("an actor of Ray has died 4 times with told ")
    assert str(raised.value).endswith(
        " in hand (on 10.0.0.7: Its process was killed); what is finished is kept, and the same "
        "command goes on behind it"
    )
    assert by_actors(model, tmp_path).finished
    assert contents(tmp_path / "out") == whole


def test_told_to_stop_what_is_in_hand_is_finished(monkeypatch, model, whole, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", Ray(1))
    stopped = []

    def told(progress):
        if progress.done and not stopped:
            stopped.append(True)
            signal.raise_signal(signal.SIGTERM)

    result = by_actors(model, tmp_path, slow=0.4, report=told)
    assert result.signal == signal.SIGTERM and 0 < result.done < SHARDS and result.code == 143
    assert by_actors(model, tmp_path).finished
    assert contents(tmp_path / "out") == whole


def test_labels_are_embedded_once(ray, model, tmp_path):
    labels = {"labels": ["a cat", "a dog", "red"], "top": 2, "shard_size": SIZE}
    source = pictures(12, SIZE)
    results = [
        score(source, tmp_path / name, model=OneDevice(model), engine=engine, **labels)
        for name, engine in (("one", None), ("ray", "ray"))
    ]
    assert all(result.finished for result in results)
    assert contents(tmp_path / "one") == contents(tmp_path / "ray")


def test_into_a_bucket(ray, model, whole, tmp_path):
    source = Deadly(ITEMS, SIZE, tmp_path, {})
    out = "memory://actors/out"
    result = embed(source, out, model=OneDevice(model), engine="ray", max_error_share=0.5)
    assert result.finished
    import fsspec

    there = fsspec.filesystem("memory")
    data = {name: data for name, data in whole.items() if name.startswith(("data", "manifest"))}
    assert data == {name: there.cat_file(f"/actors/out/{name}") for name in data}


def test_too_many_errors_and_unreadable_shards(ray, model, tmp_path):
    bad = [Item(f"{i:02d}", b"hello") for i in range(40)]
    with pytest.raises(ErrorShare.Exceeded, match=r"1\d of 1\d items .* cannot be read, more than"):
        embed(Deadly(bad, 4, tmp_path, {}), tmp_path / "a", model=OneDevice(model), engine="ray")
    gone = [Item("a", picture(1)), *(OSError(f"{i}.tar: gone") for i in range(9))]
    with pytest.raises(ValueError, match=r"^4 shards .* opened; the last: told \d: \d.tar: gone"):
        embed(Deadly(gone, 1, tmp_path, {}), tmp_path / "b", model=OneDevice(model), engine="ray")


def test_a_model_that_is_not_there_names_the_worker(ray, tmp_path):
    host = socket.gethostname()
    with pytest.raises(ValueError, match=rf"/no/m cannot be loaded on the worker {host}: .*") as e:
        embed(pictures(4), tmp_path / "out", model="/no/m", engine="ray")
    assert "\n" not in str(e.value) and not (tmp_path / "out").exists()


def test_a_folder_that_nodes_do_not_share(ray, model, tmp_path, monkeypatch):
    from siglip_jax.jobs import ray_actors

    monkeypatch.setattr(ray_actors.Path, "touch", lambda self: None)
    with pytest.raises(ValueError, match=r"is not the folder that the command writes to; .*worker"):
        embed(pictures(4), tmp_path / "out", model=OneDevice(model), engine="ray")


def test_an_image_that_is_here_and_not_there(tmp_path):
    """Of one that is nowhere the row is in error, as without actors."""

    class Written:
        rows = 0
        added = ()

        def add(self, entry):
            self.added += (entry,)

    here, ledger = tmp_path / "a.png", Written()
    here.write_bytes(picture(1))
    work = Work(None, pictures(4), tmp_path, None)
    records = RayRecords(work, ledger, ErrorShare(1.0))
    entry = Entry(0, "told 0", 4, 1, [{"key": "a.png", "error": "no such file"}], [])
    report = Report(entry, None, str(here), 0, {}, "actor", "node7")
    with pytest.raises(ValueError, match=r"a.png of the source is not on the worker node7; give"):
        records.add(report)
    assert ledger.added == ()
    records.add(report._replace(missing=str(tmp_path / "b.png")))
    assert ledger.added == (entry,)


def test_devices_that_actors_take():
    assert places(Ray(3)) == (3, {"num_cpus": 1, "scheduling_strategy": "SPREAD"})
    assert places(Ray(2, GPU=8.0)) == (8, {"num_cpus": 1, "num_gpus": 1})
    assert places(Ray(2, GPU=8.0, TPU=4.0))[1] == {"num_cpus": 1, "resources": {"TPU": 1}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "spark"}, "the engine must be ray or ray://HOST:PORT, got 'spark'"),
        ({"engine": "ray://head"}, "the engine must be ray or ray://HOST:PORT, got 'ray://head'"),
        ({"update": True}, "an update is done by one process; run update without an engine"),
        ({"shared": True}, "Ray divides the shards among its actors; leave out shared"),
        ({"part": "1/2"}, "Ray divides the shards among its actors; leave out part"),
        ({"program": "x"}, "a saved program is for the devices of one process; leave out program"),
    ],
)
def test_what_does_not_go_with_an_engine(options, said, tmp_path):
    with pytest.raises(ValueError) as raised:
        embed(pictures(4), tmp_path / "out", model="m", **{"engine": "ray", **options})
    assert str(raised.value) == said and not (tmp_path / "out").exists()


def test_a_model_that_is_loaded_is_refused(ray, tmp_path):
    with pytest.raises(ValueError, match="must be a name or a path, which each worker loads"):
        embed(pictures(4), tmp_path / "out", model=siglip_jax.load("siglip_emoji"), engine="ray")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--engine spark", "argument --engine: the engine must be ray or ray://HOST:PORT, got"),
        ("--engine ray --update", "an update is done by one process; run --update without an"),
        ("--engine ray --shared", "Ray divides the shards among its actors; leave out --shared"),
        ("--engine ray --part 1/2", "leave out --part"),
        ("--engine ray --distributed", "leave out --distributed"),
        ("--engine ray --program f", "leave out --program"),
    ],
)
def test_refused_on_the_command_line(argv, said, tmp_path, capsys):
    argv = f"embed gone.tar --model m --out {tmp_path}/out {argv}".split()
    try:
        code = main(argv)
    except SystemExit as ended:  # argparse
        code = ended.code
    assert code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_ray(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.png").write_bytes(picture(1))
    argv = ["embed", str(tmp_path), "--model", "m", "--out", str(tmp_path / "out")]
    assert main([*argv, "--engine", "ray"]) == 2
    assert capsys.readouterr().err.startswith(
        "siglip-jax: error: Ray is not installed, and the engine is Ray, which the extra [engines] "
        "brings; pip install "
    )
    assert not (tmp_path / "out").exists()


def test_an_address_nobody_answers(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(Ray, "is_initialized", lambda self: False)
    said = r"^ray://127.0.0.1:1: nobody answers there \(Connection refused\); on a node of the clus"
    with pytest.raises(ValueError, match=said):
        embed(pictures(4), tmp_path / "out", model="m", engine="ray://127.0.0.1:1")
    assert not (tmp_path / "out").exists()


def test_the_commands_model_is_pickled_without_what_is_open_here():
    from types import SimpleNamespace

    args = SimpleNamespace(model="m", res=32, opened=open(__file__), progress=sys.stdout)  # noqa: SIM115, PTH123
    try:
        again = pickle.loads(pickle.dumps(ModelLoader(args, images=True, texts=False)))
    finally:
        args.opened.close()
    assert again.model == "m" and vars(again._args) == {"model": "m", "res": 32}


def test_errors_of_actors_can_be_pickled():
    error = SettingError("out of memory", "batch_size", "a smaller {}")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
