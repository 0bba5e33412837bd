"""Plans of scoring and training programs, on eight fake CPU devices."""

import dataclasses

import jax
import pytest
import tiny_checkpoint
from flax.traverse_util import flatten_dict, unflatten_dict

from siglip_jax.checkpoints import find
from siglip_jax.config import Execution
from siglip_jax.plan import (
    CHIPS,
    Slice,
    TooLarge,
    Workload,
    find_slice,
    largest_batch,
    make_plan,
    scoring_program,
    scoring_workload,
    training_workload,
)
from siglip_jax.plan.estimate import plan_and_program
from siglip_jax.plan.flops import image_flops, text_flops

HERE = Slice("local", jax.devices(), None)
V5E = next(chip for chip in CHIPS if chip.name == "v5e")


def workload(
    task="images", *, config=tiny_checkpoint.CONFIG, scan=False, fsdp=False, devices=None, **kw
):
    execution = Execution(scan_image=scan, scan_text=scan)
    devices = jax.devices() if devices is None else devices
    program = scoring_program(config, devices, execution, fsdp=fsdp)
    return scoring_workload(task, program, **kw)


@pytest.mark.parametrize("task", ["images", "texts", "logits"])
def test_memory_is_what_xla_says(task):
    plan, program = plan_and_program(workload(task, labels=40), 32, HERE)
    memory = program.memory_analysis()
    assert (plan.arguments, plan.outputs, plan.temporary, plan.aliased) == (
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.alias_size_in_bytes,
    )
    assert plan.arguments >= plan.weights + 32 // 8
    assert plan.total == plan.arguments + plan.outputs + plan.temporary - plan.aliased
    assert plan.flops_once == program.cost_analysis()["flops"]
    # The chip is unknown, so nothing is said of time.
    assert (plan.capacity, plan.seconds, plan.rate) == (None, None, None)


def test_the_analytic_count_is_xlas_for_a_loop_and_a_scan():
    # Real widths: norms and softmax are no small part of a tiny model.
    size = dataclasses.replace(find("siglip_b16_224").config.vision.size, depth=3)
    config = find("siglip_b16_224").config
    config = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, size=size),
        text=dataclasses.replace(config.text, size=size, vocab_size=100),
    )
    for task, each in (("images", image_flops(config)), ("texts", text_flops(config))):
        for scan in (False, True):
            plan = make_plan(workload(task, config=config, scan=scan), 16, HERE)
            assert plan.analytic == 2 * each
            assert plan.flops == pytest.approx(plan.analytic, rel=0.02)
            assert plan.loops == int(scan)
            # A scan's body counts once, and there are two layers more.
            assert plan.flops_once == pytest.approx(plan.flops, rel=1e-9) or scan
            assert not scan or plan.flops_once < 0.5 * plan.flops


def test_naflex_patches_are_counted():
    config = find("siglip2_b16_naflex").config
    size = dataclasses.replace(config.vision.size, depth=1)
    config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, size=size))
    plan = make_plan(workload(config=config, patches=64), 8, HERE)
    assert plan.analytic == image_flops(config, 64)
    # Four times as many weights of position embeddings as tokens are no products.
    assert plan.flops == pytest.approx(plan.analytic, rel=0.05)


def wide(depth=2):
    """Wide enough for a kernel to be split: 1024 x 1024."""
    size = dataclasses.replace(tiny_checkpoint.SIZE, width=1024, mlp_dim=1024, depth=depth)
    text = dataclasses.replace(tiny_checkpoint.CONFIG.text, size=size, head=1024)
    vision = dataclasses.replace(tiny_checkpoint.CONFIG.vision, size=size)
    return dataclasses.replace(tiny_checkpoint.CONFIG, vision=vision, text=text)


@pytest.mark.parametrize("scan", [False, True])
def test_weights_are_gathered_if_they_are_split_and_only_then(scan):
    whole = make_plan(workload(config=wide(), scan=scan), 8, HERE)
    split = make_plan(workload(config=wide(), scan=scan, fsdp=True), 8, HERE)
    output = ("all-gather", "f32[8,1024]")
    assert [(c.kind, c.array) for c in whole.collectives] == [output]
    gathers = [c for c in split.collectives if c.kind == "all-gather"]
    # Six kernels of 4 MB a block; what XLA does about the head's is its own choice.
    kernels = [
        c for c in gathers if c.array in ("f32[1024,1024]", "f32[1024,4,256]", "f32[4,256,1024]")
    ]
    assert sum(c.count for c in kernels) >= 2 * 6, gathers
    assert split.weights < 0.2 * whole.weights


def test_time_is_at_the_published_peaks():
    plan = make_plan(workload(), 32, HERE._replace(chip=V5E))
    assert plan.compute_seconds == plan.flops / (197e12 / 6)  # float32: six passes
    assert plan.memory_seconds == plan.nbytes / 819e9
    assert plan.rate == 32 / max(plan.compute_seconds, plan.memory_seconds)
    assert plan.capacity == 15.75 * 2**30
    plain = plan.to_dict()
    assert plain["collectives"][0]["total"] == plan.collectives[0].total
    bfloat16 = scoring_program(
        tiny_checkpoint.CONFIG, jax.devices(), Execution(dtype="bfloat16", precision="highest")
    )
    assert scoring_workload("images", bfloat16).precision == "default"
    assert scoring_workload("texts", bfloat16).precision == "highest"


def roomy(gibibytes):
    return HERE._replace(name="v5e:2x4", chip=dataclasses.replace(V5E, memory=gibibytes * 2**30))


def test_the_largest_batch_is_found_from_anywhere():
    product = workload("logits", labels=64)  # quick to compile
    one, two = (make_plan(product, 8 * n, HERE) for n in (16, 32))
    where = roomy((one.total + two.total) / 2 / 2**30)
    for known in (None, make_plan(product, 8, HERE), one):
        assert largest_batch(product, where, known, most=64) == 16
    assert largest_batch(product, HERE._replace(chip=V5E), most=4) == 4
    assert largest_batch(product, roomy(1e-9), most=2) == 0
    with pytest.raises(ValueError, match="the memory of local is unknown"):
        largest_batch(product, HERE)


def test_what_does_not_fit():
    weights = workload().weights
    message = "images, 4 a chip, does not fit into the memory of v5e:2x4: .*GiB"
    with pytest.raises(TooLarge, match=message + ".*; its weights alone are .*--fsdp"):
        make_plan(workload(), 32, roomy(weights / 2**30))
    with pytest.raises(TooLarge, match=message) as error:
        make_plan(workload(), 32, roomy(1.2 * weights / 2**30))
    assert "fsdp" not in str(error.value)


def test_what_the_compiler_says_does_not_fit():
    class Full:
        def as_text(self):
            return "a program"

        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 18.2G of 15.75G."
            )

    full = Workload(
        task="images", devices=8, lower=lambda batch: Full(), flops=lambda batch: 1, weights=1,
        precision="default", fsdp=False,
    )  # fmt: skip
    with pytest.raises(TooLarge, match=r"images, 2 a chip, .*: 18.2GiB of 15.75GiB"):
        make_plan(full, 16, roomy(15.75))


def test_a_batch_that_does_not_divide():
    with pytest.raises(
        ValueError, match="12 does not divide over 8 chips; the next that does is 16"
    ):
        make_plan(workload(), 12, HERE)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("v5e:4x3", "v5e:4x4"),
        ("v6:2x4", "v6e:2x4"),
        ("v5e", "v5e:4x4"),
        ("v5p:4x4", "v5p:2x4x4"),
        ("locl", "local"),
        ("h10", "H100"),
        ("v5e:0x4", "v5e:2x4"),
    ],
)
def test_a_misspelled_slice(name, near):
    with pytest.raises(ValueError, match=f"no topology is called '{name}'; did you mean .*{near}"):
        find_slice(name)


@pytest.mark.parametrize("name", ["h100", "H100:8"])
def test_a_gpu_is_no_slice(name):
    with pytest.raises(ValueError, match=rf"{name} is a GPU, .* or plan a bulk job on it"):
        find_slice(name)


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'needs libtpu.*pip install "jax\[tpu\]"'):
        find_slice("v5e:4x4")


def test_local_devices():
    where = find_slice("local")
    assert (len(where.devices), where.chip, where.memory) == (8, None, None)


def recipe(**changes):
    pytest.importorskip("optax")
    from siglip_jax.training import recipe_from_dict

    config = tiny_checkpoint.CONFIG
    towers = {
        "image": dataclasses.asdict(config.vision.size) | {"patch": 8, "res": 32},
        "text": dataclasses.asdict(config.text.size) | {"vocab_size": 50, "length": 16},
    }
    plain = {"steps": 4, "batch": 16, "data": {"train": "x.parquet"}, "model": towers}
    plain["model"]["vocabulary"] = "x.model"
    return recipe_from_dict(plain | changes)


def test_a_training_is_compiled_as_it_runs():
    """The same program as `train` would compile from real weights."""
    workload = training_workload(recipe(), jax.devices())
    plan, program = plan_and_program(workload, 16, HERE)
    kinds = {each.kind for each in plan.collectives}
    assert kinds >= {"all-reduce", "collective-permute"}  # gradients; the ring of texts
    # Weights, and adam's two moments of them; the state is updated in place.
    weights = sum(leaf.size for leaf in tiny_checkpoint.tensors().values()) * 4
    assert plan.weights == pytest.approx(3 * weights, abs=64)
    assert plan.aliased >= 3 * weights
    assert plan.flops > plan.analytic > 2 * 2 * image_flops(tiny_checkpoint.CONFIG)

    from siglip_jax.programs import REPLICATED, make_mesh
    from siglip_jax.training.optimizer import make_optimizer, treatments
    from siglip_jax.training.step import first_state

    params = unflatten_dict(tiny_checkpoint.tensors(), sep="/")
    params = jax.tree.map(jax.numpy.asarray, params)
    trained = treatments(flatten_dict(params, sep="/"), (), recipe().optimizer)
    tx = make_optimizer(recipe().optimizer, trained, 4)
    state = first_state(params, tx, trained, make_mesh(), REPLICATED)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), program.in_avals[0][0]) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )


def test_a_training_with_split_weights_and_a_frozen_tower():
    frozen = recipe(devices={"weights": "fsdp"}, parameters=[{"pattern": "img/.*", "frozen": True}])
    workload = training_workload(frozen, jax.devices())
    assert workload.fsdp
    all_trained = training_workload(recipe(), jax.devices())
    assert all_trained.flops(16) - workload.flops(16) == 2 * (
        2 * image_flops(tiny_checkpoint.CONFIG) - 2 * 16 * 192 * 48
    )


def test_a_training_needs_a_model():
    from siglip_jax.training import recipe_from_dict

    plain = {"steps": 4, "batch": 16, "data": {"train": "x"}, "init": {"model": "siglip_b16_224"}}
    with pytest.raises(ValueError, match="the recipe's model is unknown"):
        training_workload(recipe_from_dict(plain), jax.devices())
    workload = training_workload(
        recipe_from_dict(plain), jax.devices(), find("siglip_b16_224").config
    )
    assert workload.weights > 3 * 4 * 203_155_970


@pytest.fixture
def absent(tmp_path, monkeypatch):
    """Devices as if they were those of a slice, a folder for what is kept, and the compilations."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "compiled"))
    compiled = []
    compile = jax.stages.Lowered.compile

    def counted(self, *args, **options):
        compiled.append(self)
        return compile(self, *args, **options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", counted)
    yield HERE._replace(name="v5e:2x4"), compiled, tmp_path / "compiled"
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_same_program_is_compiled_once(absent):
    target, compiled, _ = absent
    plans = [make_plan(workload("images"), 16, target) for _ in range(2)]
    assert len(compiled) == 1 and plans[0].compile_seconds > 0
    now = {"lower_seconds": 0.0}
    assert dataclasses.replace(plans[0], **now) == dataclasses.replace(plans[1], **now)
    make_plan(workload("images"), 32, target)
    make_plan(workload("images"), 16, target._replace(name="v6e:2x4"))
    assert len(compiled) == 3


def test_what_does_not_fit_is_compiled_once(absent, monkeypatch):
    target, compiled, _ = absent
    small = target._replace(chip=dataclasses.replace(V5E, memory=1000.0))
    for _ in range(2):
        with pytest.raises(TooLarge, match="does not fit into the memory of v5e:2x4"):
            make_plan(workload("images"), 16, small)
    assert len(compiled) == 1


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"sha256": "x", "kept": {"plan": {}}}'])
def test_a_damaged_file_costs_a_compilation(absent, damage):
    target, compiled, folder = absent
    first = make_plan(workload("images"), 16, target)
    (file,) = (folder / "siglip_jax/plans").iterdir()
    whole = file.read_bytes()
    for bad in (damage, whole.replace(str(first.flops).encode(), b"1.0")):
        file.write_bytes(bad)
        count = len(compiled)
        assert make_plan(workload("images"), 16, target).flops == first.flops
        assert len(compiled) == count + 1
