"""PEFT adapters: merged into a base of any format, or one line that says how or why not."""

import numpy as np
import pytest
from adapter_folders import QUERY, adapter_folder, factors
from tiny_checkpoint import CONFIG, tensors

import siglip_jax
from siglip_jax.converters import convert, needed_files, open_checkpoint
from siglip_jax.converters.loop_form import LoopForm
from siglip_jax.model_files import open_model
from siglip_jax.preprocessing import custom_profile
from siglip_jax.weights.npz import write_npz

KERNEL = "img/Transformer/encoderblock_1/MultiHeadDotProductAttention_0/query/kernel"


@pytest.fixture(scope="module", params=["npz", "scanned", "transformers", "siglip_jax"])
def base(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("base")
    path = root / "base.npz"
    write_npz(path, tensors().items())
    if request.param == "npz":
        return path
    if request.param == "scanned":
        convert(path, root / "s.npz", to="npz", config=CONFIG, scan_image=True, scan_text=True)
        return root / "s.npz"
    convert(path, root / "other", to=request.param, config=CONFIG, pad=1)
    return root / "other"


def merged(folder, base):
    with open_model(folder, base=base, config=CONFIG) as opened:
        reader = LoopForm(opened.reader)
        return opened, {name: np.array(reader.read(name)) for name in reader.shapes}


def test_merged_into_a_base_of_any_format(tmp_path, base):
    opened, found = merged(adapter_folder(tmp_path / "tuned"), base)
    a, b = factors()
    expected = tensors()
    # The other library stores (out, in), and heads behind each other.
    expected[KERNEL] = expected[KERNEL] + 3 * (b @ a).T.reshape(48, 4, 12)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)
    assert not np.array_equal(found[KERNEL], tensors()[KERNEL])
    assert "a LoRA adapter of rank 2 (tuned, 1 weights) is merged into" in opened.reports[-1]
    assert opened.checkpoint is None and opened.name.endswith("with tuned")


def test_load_and_convert(tmp_path, base):
    folder = adapter_folder(tmp_path / "tuned")
    with pytest.warns(UserWarning, match="LoRA adapter of rank 2"):
        model = siglip_jax.load(folder, base=base, config=CONFIG, profile=custom_profile(CONFIG, 1))
    _, found = merged(folder, base)
    block = model.params["img"]["Transformer"]["encoderblock_1"]
    kernel = block["MultiHeadDotProductAttention_0"]["query"]["kernel"]
    np.testing.assert_array_equal(kernel, found[KERNEL])
    with open_model(folder, base=base, config=CONFIG) as opened:
        record = convert(opened, tmp_path / "merged.npz", to="npz")
    assert record.verified and any("LoRA" in note for note in record.notes)
    assert "tuned/adapter_model.safetensors" in record.source["files"] or (
        "adapter_model.safetensors" in record.source["files"]
    )


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_tower_of_an_adapter_of_both(tmp_path, base, tower):
    text = QUERY.replace("vision_model", "text_model")
    folder = adapter_folder(tmp_path / "tuned", modules=(QUERY, text))
    with open_model(folder, base=base, config=CONFIG, tower=tower) as opened:
        reader = LoopForm(opened.reader)
        found = {name: np.array(reader.read(name)) for name in reader.shapes}
    assert opened.tower == tower and "(tuned, 1 weights)" in opened.reports[-1]
    _, whole = merged(folder, base)
    begin = "img/" if tower == "image" else "txt/"
    assert found.keys() == {name for name in whole if name.startswith(begin)}
    for name, array in found.items():
        np.testing.assert_array_equal(array, whole[name])


def test_without_a_base_one_line_says_how(tmp_path):
    folder = adapter_folder(tmp_path / "tuned")
    message = (
        r"is no model but a PEFT adapter \(LORA\) of google/siglip-base-patch16-224; pass base"
    )
    for path in (folder, folder / "adapter_model.safetensors"):
        with pytest.raises(ValueError, match=message):
            open_checkpoint(path)
        with pytest.raises(ValueError, match=message):
            siglip_jax.load(path)


def test_what_a_repository_needs():
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert needed_files(files) == files[1:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "an adapter of kind IA3; only LORA is merged"),
        ({"use_dora": True}, "use_dora is True, another kind of LoRA"),
        ({"a_new_kind": {"x": 1}}, "a_new_kind is .*, another kind of LoRA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base"),
        ({"r": 4}, r"the factors of .*q_proj have shapes \(2, 48\) and \(48, 2\), expected rank 4"),
        ({"modules": [QUERY.replace("layers.1", "layers.7")]}, "layers.7.* is not in .*near"),
        ({"modules": [QUERY.replace("q_proj", "x_proj")]}, "1 of 1 trained weights are of another"),
        ({"tensors": {"base_model.model.x.weight": np.ones(2, np.float32)}}, "holds no LoRA"),
        (
            {"extra": {f"base_model.model.{QUERY}.lora_magnitude_vector": np.ones(48, np.float32)}},
            "lora_magnitude_vector is another kind of LoRA",
        ),
        (
            {"tensors": {f"base_model.model.{QUERY}.lora_A.weight": np.ones((2, 48), np.float32)}},
            "has only lora_A",
        ),
        (
            {
                "tensors": {
                    f"base_model.model.{QUERY}.lora_A.weight": np.ones((2, 40), np.float32),
                    f"base_model.model.{QUERY}.lora_B.weight": np.ones((48, 2), np.float32),
                }
            },
            r"is of shape \(48, 40\), in .* it is \(48, 48\)",
        ),
    ],
)
def test_what_is_refused(tmp_path, change, message):
    write_npz(tmp_path / "base.npz", tensors().items())
    folder = adapter_folder(tmp_path / "tuned", **change)
    with pytest.raises(ValueError, match=message) as error:
        open_model(folder, base=tmp_path / "base.npz", config=CONFIG)
    assert "\n" not in str(error.value)
