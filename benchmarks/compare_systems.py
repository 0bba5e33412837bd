"""The systems that `compare.py` and `start.py` run: one process each, told what to do by lines.

    PYTHON benchmarks/compare_systems.py SYSTEM FOLDER THREADS [PRECISION]

answers every line of JSON on its standard input with one on its standard output, such as
{"tower": "images", "batch": 8} with {"seconds": 1.9}. The folder is `compare.py`'s. A
system is imported by its own class alone, so that TensorFlow and torch never meet. Each is at
its fastest in a precision: "float32"; "bfloat16", weights and activations or autocast; "int8",
weights and activations of dense layers, quantized by the system's own tool
(`compare_quantized.py`), and the rest in what is fastest.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

# What every system is given: the same seeded numbers, made here again in each process.
RES, LENGTH, VOCABULARY = 224, 64, 32_000
PRECISIONS = ("float32", "bfloat16", "int8")


def inputs(tower: str, batch: int) -> np.ndarray:
    """Images (b, 224, 224, 3) float32 in [-1, 1], or token ids (b, 64) int32."""
    rng = np.random.default_rng(batch)
    if tower == "texts":
        return rng.integers(0, VOCABULARY, (batch, LENGTH), dtype=np.int32)
    return rng.uniform(-1, 1, (batch, RES, RES, 3)).astype(np.float32)


class Ours:
    """siglip_jax, through the Scorer that users have."""

    precisions = PRECISIONS

    def __init__(self, folder: Path, threads: int, precision: str = "float32") -> None:
        from siglip_jax.allocator import keep_freed_memory

        keep_freed_memory()
        import siglip_jax

        dtype = "float32" if precision == "float32" else "bfloat16"
        execution = siglip_jax.Execution(weights=precision, dtype=dtype, text_dtype=dtype)
        self.model = siglip_jax.load(folder / "siglip_jax", execution=execution)
        self.scorers: dict = {}

    def embed(self, tower: str, batch: int):
        if batch not in self.scorers:
            self.scorers[batch] = self.model.scorer(
                tokenizer=False, batch_size=batch, text_batch_size=batch
            )
        scorer = self.scorers[batch]
        return scorer.embed_images if tower == "images" else scorer.embed_texts


class BigVision:
    """big_vision's own model on its own .npz, jitted, with a checkout on the path."""

    precisions = ("float32",)

    def __init__(self, folder: Path, threads: int, precision: str = "float32") -> None:
        import jax
        from big_vision.models.proj.image_text import two_towers
        from flax.traverse_util import unflatten_dict

        model = two_towers.Model(
            image={"variant": "B/16", "pool_type": "map"},
            text={"variant": "B", "vocab_size": VOCABULARY},
            out_dim=(None, 768),
            temperature_init=10.0,
            bias_init=-10.0,
        )
        with np.load(folder / "big_vision.npz") as file:
            flat = {name.removeprefix("params/"): file[name] for name in file.files}
        self.params = jax.device_put(unflatten_dict(flat, sep="/"))
        self.run = {
            "images": jax.jit(lambda p, x: model.apply({"params": p}, x, None)[0]),
            "texts": jax.jit(lambda p, x: model.apply({"params": p}, None, x)[1]),
        }

    def embed(self, tower: str, batch: int):
        return lambda x: np.asarray(self.run[tower](self.params, x))


class Torch:
    """Either library of torch, eager or compiled."""

    precisions = PRECISIONS[:2]

    def __init__(self, folder: Path, threads: int, precision: str = "float32") -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch, self.precision = torch, precision
        self.images, self.texts = self.load(folder)

    def load(self, folder: Path):
        raise NotImplementedError

    def embed(self, tower: str, batch: int):
        function = self.images if tower == "images" else self.texts

        def run(x: np.ndarray) -> np.ndarray:
            if tower == "images":
                x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
            given = self.torch.from_numpy(x if tower == "images" else x.astype(np.int64))
            half = self.precision == "bfloat16"
            autocast = self.torch.autocast("cpu", self.torch.bfloat16, enabled=half)
            with self.torch.inference_mode(), autocast:
                return function(given).float().numpy()

        return run


class Transformers(Torch):
    """AutoModel, with scaled_dot_product_attention, which is its default."""

    precisions = PRECISIONS

    def load(self, folder: Path):
        import transformers

        model = transformers.AutoModel.from_pretrained(folder / "transformers").eval()
        if self.precision == "int8":
            linear = {self.torch.nn.Linear}
            model = self.torch.ao.quantization.quantize_dynamic(model, linear)

        def unit(out):
            z = out if self.torch.is_tensor(out) else out.pooler_output
            return z / z.norm(dim=-1, keepdim=True)

        return (
            lambda x: unit(model.get_image_features(pixel_values=x)),
            lambda x: unit(model.get_text_features(input_ids=x)),
        )


class TransformersCompiled(Transformers):
    precisions = PRECISIONS[:2]

    def load(self, folder: Path):
        return tuple(self.torch.compile(f, dynamic=False) for f in super().load(folder))


class OpenClip(Torch):
    def load(self, folder: Path):
        import open_clip

        model = open_clip.create_model(f"local-dir:{folder / 'open_clip'}").eval()
        return (
            lambda x: model.encode_image(x, normalize=True),
            lambda x: model.encode_text(x, normalize=True),
        )


class OpenClipCompiled(OpenClip):
    def load(self, folder: Path):
        return tuple(self.torch.compile(f, dynamic=False) for f in super().load(folder))


class OnnxRuntime:
    """The exported graphs, with the graph optimisations that are its default."""

    precisions = ("float32", "int8")

    def __init__(self, folder: Path, threads: int, precision: str = "float32") -> None:
        import onnxruntime

        self.runtime, self.threads, self.folder = onnxruntime, threads, folder
        self.suffix = "-int8" if precision == "int8" else ""
        self.sessions: dict = {}

    def embed(self, tower: str, batch: int):
        if tower not in self.sessions:
            options = self.runtime.SessionOptions()
            options.intra_op_num_threads = self.threads
            # The threads would go on burning the cores while another system is timed.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self.sessions[tower] = self.runtime.InferenceSession(
                self.folder / "onnx" / f"{tower}{self.suffix}.onnx",
                options,
                providers=["CPUExecutionProvider"],
            )
        session = self.sessions[tower]
        return lambda x: session.run(None, {"x": exported_form(tower, x)})[0]


class OpenVino:
    """The exported graphs, compiled for one shape."""

    precisions = PRECISIONS

    def __init__(self, folder: Path, threads: int, precision: str = "float32") -> None:
        import openvino

        self.core, self.folder, self.made = openvino.Core(), folder, {}
        self.suffix = "-int8.xml" if precision == "int8" else ".onnx"
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
            "PERFORMANCE_HINT": "LATENCY",
        }

    def embed(self, tower: str, batch: int):
        if (tower, batch) not in self.made:
            model = self.core.read_model(self.folder / "onnx" / f"{tower}{self.suffix}")
            model.reshape(exported_form(tower, inputs(tower, batch)).shape)
            self.made[tower, batch] = self.core.compile_model(model, "CPU", self.settings)
        compiled = self.made[tower, batch]
        return lambda x: compiled(exported_form(tower, x))[0]


def exported_form(tower: str, x: np.ndarray) -> np.ndarray:
    """`inputs` as the exported graphs take them."""
    if tower == "texts":
        return x.astype(np.int64)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def export(folder: Path) -> None:
    """Writes onnx/images.onnx and onnx/texts.onnx, of any batch, from transformers' model."""
    import torch

    system = Transformers(folder, 1)

    class Tower(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    (folder / "onnx").mkdir(exist_ok=True)
    for tower, function in (("images", system.images), ("texts", system.texts)):
        example = torch.from_numpy(exported_form(tower, inputs(tower, 2)))
        torch.onnx.export(
            Tower(function),
            (example,),
            folder / "onnx" / f"{tower}.onnx",
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            dynamo=True,
            verbose=False,
        )


SYSTEMS = {
    "siglip_jax": Ours,
    "big_vision": BigVision,
    "transformers": Transformers,
    "transformers, compiled": TransformersCompiled,
    "open_clip": OpenClip,
    "open_clip, compiled": OpenClipCompiled,
    "ONNX Runtime": OnnxRuntime,
    "OpenVINO": OpenVino,
}


def serve(name: str, folder: Path, threads: int, precision: str = "float32") -> None:
    """Answers requests until the input ends."""
    # What libraries print belongs on stderr: stdout is for answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    system, ready = SYSTEMS[name](folder, threads, precision), {}
    for line in sys.stdin:
        request = json.loads(line)
        tower, batch = request["tower"], request["batch"]
        x = inputs(tower, batch)
        if (tower, batch) not in ready:
            ready[tower, batch] = system.embed(tower, batch)
            ready[tower, batch](x)
        start, spent = time.perf_counter(), time.process_time()
        z = ready[tower, batch](x)
        answer = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - spent}
        if "save" in request:
            np.save(request["save"], z)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _, name, folder, threads, *precision = sys.argv
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: int(threads)])
    if name == "export":
        export(Path(folder))
    else:
        serve(name, Path(folder), int(threads), *precision)
