"""Files of live training code: compiled, averaged, sharded; read as the model inside of them."""

import numpy as np
import pytest
from torch_libraries import import_libraries

torch, transformers = import_libraries("transformers")

from siglip_jax.converters import open_checkpoint  # noqa: E402
from siglip_jax.converters.files import open_file  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    vision = SIZE | {"image_size": 32, "patch_size": 16}
    text = SIZE | {"vocab_size": 50, "max_position_embeddings": 8}
    config = transformers.SiglipConfig(vision_config=vision, text_config=text)
    return transformers.SiglipModel(config).eval()


def wrapped(model, how):
    if how == "compiled":
        return torch.compile(model)
    if how == "data parallel":
        return torch.nn.DataParallel(model)
    if how == "averaged":
        return torch.optim.swa_utils.AveragedModel(model)
    parent = torch.nn.Module()
    parent.model = torch.compile(model)
    return parent


@pytest.mark.parametrize("how", ["compiled", "data parallel", "averaged", "in a module"])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_what_wraps_a_model(tmp_path, model, how, ending):
    from safetensors.torch import save_file

    model.config.save_pretrained(tmp_path)
    state = {name: t.clone() for name, t in wrapped(model, how).state_dict().items()}
    path = tmp_path / f"weights.{ending}"
    if ending == "pt":
        torch.save({"state_dict": state, "dtype": torch.bfloat16, "device": "cpu"}, path)
    else:
        save_file(state, path)
    with open_checkpoint(path) as opened:
        assert opened.reports
    with open_file(path) as reader:
        plain = model.state_dict()
        assert reader.shapes.keys() == plain.keys()
        for name, tensor in plain.items():
            np.testing.assert_array_equal(reader.read(name), tensor.numpy())
