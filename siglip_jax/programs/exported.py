"""Programs in a file: StableHLO that starts without tracing the model again.

A file is a zip of `program.json` (what it is of) and one `<task>.stablehlo` each, as
`jax.export` writes them. It holds no weights and can be written for devices that are not there.
XLA compiles it on the machine that runs it; jax's compilation cache keeps the result.

Files age: jax promises that a version runs what versions of the 180 days before it exported, and
of the three weeks after it (https://docs.jax.dev/en/latest/export/export.html). A file says
when and by which jax it was written, and another jax refuses it once it is older.
"""

import dataclasses
import datetime
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import export

from siglip_jax import config as configs
from siglip_jax.config import Execution, Siglip
from siglip_jax.json_text import parsed
from siglip_jax.models.activations import traced_for
from siglip_jax.preprocessing import Patches
from siglip_jax.preprocessing.profiles import PixelRange
from siglip_jax.programs import Program, make_mesh
from siglip_jax.programs.tasks import Task, program_function, program_inputs
from siglip_jax.weights.bounds import open_zip
from siglip_jax.weights.staging import staged

if TYPE_CHECKING:
    from siglip_jax.scoring import Scorer

FACTS, SUFFIX = "program.json", ".stablehlo"
# Days that another jax may be expected to run a file.
PROMISED = 180
_ANEW = "write it again with siglip-jax plan MODEL --on local --save FILE"
export.register_namedtuple_serialization(Patches, serialized_name="siglip_jax.models.Patches")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedProgram:
    """What `load_program` returns.

    Attributes:
      config, execution, platform: what the programs are of, and for.
      devices: how many share a batch.
      pixels: what uint8 0 and 255 become.
      split: whether weights are split over the devices.
      batches: task ("images", "texts", "logits") to its batch over all devices.
      functions: task to a function of weights and inputs, as those of `Program`.
      jax: the version that wrote it.
      written: the day, in UTC.
    """

    config: Siglip
    execution: Execution
    platform: str
    devices: int
    pixels: PixelRange
    split: bool
    batches: Mapping[str, int]
    functions: Mapping[str, Any]
    jax: str
    written: datetime.date

    def start(self, scorer: "Scorer") -> "Scorer":
        """Makes `scorer` run these programs in place of tracing its own.

        Raises:
          ValueError: if it is of another model, or has other batches or devices.
        """
        if self.config != scorer.model.config:
            raise ValueError(f"the saved program is of another model than the scorer; {_ANEW}")
        program = scorer.program
        both = {
            name: (getattr(self.execution, name), getattr(scorer.model.execution, name))
            for name in (field.name for field in dataclasses.fields(Execution))
        }
        both["devices"] = self.devices, scorer.mesh.size
        both["range of pixels"] = self.pixels, program.pixels
        both["split of weights"] = self.split, _split(program)
        sizes = {"images": scorer.batch_size, "texts": scorer.text_batch_size}
        for task in sizes.keys() & self.functions.keys():
            both[f"batch of {task}"] = self.batches[task], sizes[task]
        for name, (ours, theirs) in both.items():
            if ours != theirs:
                raise ValueError(
                    f"the saved program has another {name} than the scorer: {ours} and {theirs}"
                )
        for task in sizes.keys() & self.functions.keys():
            setattr(program, task, self.functions[task])
        return scorer

    @property
    def batch_sizes(self) -> dict[str, int]:
        """The sizes of batches that a `Scorer` needs for this, by its arguments' names."""
        names = {"images": "batch_size", "texts": "text_batch_size"}
        return {names[task]: size for task, size in self.batches.items() if task in names}


def save_program(
    path: str | Path,
    program: Program,
    batches: Mapping[Task, int],
    *,
    platform: str,
    labels: int = 1024,
    patches: int | None = None,
) -> Path:
    """Writes the programs of `batches`, task to items over all devices.

    Args:
      platform: "tpu", "cpu" or "cuda".
      labels, patches: as for `scoring_workload`.

    Raises:
      ValueError: if the folder does not exist.
    """
    path = Path(path).expanduser()
    params = program.abstract_params()
    facts = {
        "config": configs.to_dict(program.model.config),
        "execution": dataclasses.asdict(program.model.execution),
        "platform": platform,
        "devices": program.mesh.size,
        "pixels": program.pixels,
        "split": _split(program),
        "batches": dict(batches),
        "jax": jax.__version__,
        "date": _today().isoformat(),
    }
    with staged(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(FACTS, json.dumps(facts, indent=1))
        for task, batch in batches.items():
            inputs = program_inputs(program, task, batch, labels=labels, patches=patches)
            function = program_function(program, task)
            with traced_for(platform):
                exported = export.export(function, platforms=[platform])(params, *inputs)
            file.writestr(f"{task}{SUFFIX}", bytes(exported.serialize()))
    return path


def load_program(path: str | Path, devices: Any = None) -> SavedProgram:
    """Reads what `save_program` (`siglip-jax plan --save`) wrote.

    Args:
      devices: to run on; default: as many as needed, the first of all devices.

    Raises:
      ValueError: if it is no such file, is for other devices, or is of another jax and older
        than jax promises to run, or cannot be run by this one.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as opened:
            file = open_zip(opened)
            facts = parsed(file.read(FACTS))
            texts = {str(task): file.read(f"{task}{SUFFIX}") for task in facts["batches"]}
            config = configs.from_dict(facts["config"])
            execution = Execution(**facts["execution"])
            low, high = (tuple(x) if isinstance(x, list) else x for x in facts["pixels"])
            split, count = bool(facts["split"]), int(facts["devices"])
            platform, batches = str(facts["platform"]), dict(facts["batches"])
            version, written = str(facts["jax"]), _written(file, facts)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    # Of a damaged file, whatever the readers of its parts stumble over.
    except Exception as error:
        raise ValueError(f"{path} is no program that siglip-jax plan --save wrote") from error
    exports = _exports(path, texts, version, written)
    everything = jax.devices() if devices is None else list(devices)
    here = everything[0].platform
    here = "cuda" if here == "gpu" else here
    if here != platform:
        raise ValueError(f"{path} is for {platform}, and the devices are {here}")
    if len(everything) < count:
        raise ValueError(f"{path} is for {count} devices, and there are {len(everything)}")
    mesh = make_mesh(everything[:count])

    def function(task: str) -> Any:
        exported = exports[task]
        shardings, _ = jax.tree.unflatten(exported.in_tree, exported.in_shardings_jax(mesh))
        (traced, *_), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)

        @jax.jit
        def run(params: Any, *inputs: Any) -> jax.Array:
            # Weights may be stored in half the precision that the program was traced with:
            # what it does with them first is what the model does, which is this.
            return exported.call(jax.tree.map(_widened, params, traced), *inputs)

        def call(params: Any, *inputs: Any) -> Any:
            return run(*jax.device_put((params, *inputs), shardings))

        return call

    return SavedProgram(
        config=config,
        execution=execution,
        platform=platform,
        devices=count,
        pixels=(low, high),
        split=split,
        batches=batches,
        functions={task: function(task) for task in texts},
        jax=version,
        written=written,
    )


def _exports(
    path: Path, texts: Mapping[str, bytes], version: str, written: datetime.date
) -> dict[str, export.Exported]:
    """The programs of a file, unless they are of another jax than may run them."""
    days = (_today() - written).days
    if version != jax.__version__ and days > PROMISED:
        raise ValueError(
            f"{path} was written {days} days ago, on {written}, by jax {version}; jax promises to "
            f"run what is {PROMISED} days old, and this is jax {jax.__version__}: {_ANEW}"
        )
    try:
        return {task: export.deserialize(bytearray(text)) for task, text in texts.items()}
    # Of a damaged file, whatever jax stumbles over.
    except Exception as error:
        if version == jax.__version__:
            raise ValueError(f"{path} is no program that siglip-jax plan --save wrote") from error
        raise ValueError(
            f"{path} was written on {written} by jax {version}, and this is jax "
            f"{jax.__version__}, which does not read it; {_ANEW}"
        ) from error


def _written(file: zipfile.ZipFile, facts: Mapping[str, Any]) -> datetime.date:
    """When a file was; before it said so, the zip did."""
    if "date" in facts:
        return datetime.date.fromisoformat(facts["date"])
    return datetime.date(*file.getinfo(FACTS).date_time[:3])


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _widened(leaf: Any, traced: Any) -> jax.Array:
    """`leaf` in the dtype that a program was traced with, which must hold it exactly."""
    if jnp.promote_types(leaf.dtype, traced.dtype) != traced.dtype:
        raise ValueError(
            f"the saved program takes weights in {traced.dtype}, and the scorer's are in "
            f"{leaf.dtype}; load the model with weights={str(traced.dtype)!r}, or {_ANEW}"
        )
    return leaf.astype(traced.dtype)


def _split(program: Program) -> bool:
    leaves = jax.tree.leaves(program.params_sharding)
    return not all(leaf.is_fully_replicated for leaf in leaves)
