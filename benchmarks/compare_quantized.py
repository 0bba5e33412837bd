"""Writes the int8 models of ONNX Runtime and OpenVINO that `compare.py` times.

    PYTHON benchmarks/compare_quantized.py FOLDER

The folder is `compare.py`'s, with its exported graphs. ONNX Runtime quantizes activations as
they come, weights by channel; OpenVINO's tool (nncf) measures activations on seeded inputs,
beforehand. Both are what their documentation names for transformers.
"""

import sys
from pathlib import Path

from compare_systems import exported_form, inputs

CALIBRATION = 32


def of_onnx_runtime(folder: Path, tower: str) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        folder / f"{tower}.onnx",
        folder / f"{tower}-int8.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )


def of_openvino(folder: Path, tower: str) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(folder / f"{tower}.onnx")
    examples = exported_form(tower, inputs(tower, CALIBRATION))
    dataset = nncf.Dataset([examples[i : i + 1] for i in range(CALIBRATION)])
    made = nncf.quantize(
        model, dataset, subset_size=CALIBRATION, model_type=nncf.ModelType.TRANSFORMER
    )
    openvino.save_model(made, folder / f"{tower}-int8.xml", compress_to_fp16=False)


if __name__ == "__main__":
    onnx = Path(sys.argv[1]) / "onnx"
    for each in ("images", "texts"):
        of_onnx_runtime(onnx, each)
        of_openvino(onnx, each)
