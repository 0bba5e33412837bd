"""Bad input: one line on stderr, no result on stdout, exit code 2, nothing written."""

import json
import shutil
from pathlib import Path

import command_line
import numpy as np
import pytest
import safetensors.numpy
from pictures import scene
from PIL import Image

# pytest looks for fixtures among the names of a module.
cli, model, pictures, surroundings = (
    command_line.cli,
    command_line.model,
    command_line.pictures,
    command_line.surroundings,
)
pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "siglip-jax: error: no command is given; there are demo, list, show, fetch, score"),
        ("scroe", "error: no command is called 'scroe'; did you mean score?"),
        ("frobnicate", "'frobnicate'; there are demo, list, show, fetch, score"),
        ("list --jsn", "siglip-jax list: error: there is no option --jsn; did you mean --json?"),
        ("--jsno list", "siglip-jax: error: there is no option --jsno"),
        (
            "search idx --model M dog",
            "arguments: dog; what is no option and no option's value comes",
        ),
        ("score b.png --model M --label cat", "no option --label; did you mean --labels?"),
        ("score b.png --model M --lables=cat", "no option --lables; did you mean --labels?"),
        ("score --model M --labels cat b.png", "required: IMAGES, and come before --labels"),
        ("score b.png --model M --labels cat --top 0", "--top: expected a whole number of at"),
        ("score b.png --model M --labels cat --dtype fp8", "--dtype: invalid choice: 'fp8'"),
        ("show siglip_b16_225", "is called 'siglip_b16_225'; did you mean "),
        ("show ./nope.npz", "nope.npz does not exist"),
        ("show notes.txt", "notes.txt is not a PyTorch file: it begins with"),
        ("score b.png --model siglip_b16_225 --labels cat", "'siglip_b16_225'; did you mean "),
        (
            "score b.png --model siglip_b16_224 --labels cat",
            "cannot find the weight file of siglip_b16_224 and the vocabulary c4_en on this "
            "machine, nor download them "
            "(HF_HUB_OFFLINE is set); fetch https://storage.googleapis.com/big_vision/siglip/"
            "webli_en_b16_224_63724782.npz and put it at ",
        ),
        (
            "score b.png --model M --labels cat --vocabulary notes.txt",
            "notes.txt: not a sentencepiece model",
        ),
        ("score b.png --model M --labels cat --vocabulary no.model", "no.model: vocabulary cannot"),
        ("score b.png --model M", "there is no label; give --labels or"),
        ("score b.png --model M --labels", "--labels: expected at least one argument"),
        ("score b.png --model M --labels-file empty.txt", "empty.txt: expected one text a"),
        ("score b.png --model M --labels cat ''", "--labels: text 2 of 2 is empty"),
        ("embed --model M --texts '' --out z.npz", "--texts: the text is empty"),
        ("search idx '' --model M", "QUERY: the text is empty"),
        ("score b.png --model M --labels-file none.txt", "none.txt: no such file or folder"),
        ("score b.png --model M --labels-file b.png", "b.png: not UTF-8 text"),
        ("score b.png --model M --labels cat --template photo", "template 'photo' must hold {}"),
        ("score empty --model M --labels cat", "empty: no images in this folder"),
        ("score *.jpg --model M --labels cat", "*.jpg: no file matches this pattern"),
        ("score notes.txt --model M --labels cat", "notes.txt: not an image in a known format"),
        ("score pictur.png --model M --labels cat", "no such file; did you mean picture.png?"),
        ("score none/a.png --model M --labels cat", "no such file; there is no folder none"),
        ("score b.png --model M --labels cat --res 4", "Vision: res 4 is smaller than patch 8"),
        ("score b.png --model M --labels cat --attention cudnn", "needs bfloat16 or float16"),
        ("embed --model M --out z.npz", "give one of SOURCE, --texts and --texts-file"),
        ("embed b.png --model M --texts x --out z.npz", "give one of SOURCE, --texts and"),
        ("embed b.png --model M --out z.txt", "--out must end in .npz, or be a folder"),
        ("embed b.png --model M --out no/z.npz", "the folder no does not exist"),
        ("embed b.png --model M --out folder.npz --force", "folder.npz is a folder"),
        ("embed --model M --texts-file empty.txt --out z.npz", "empty.txt: expected one text a"),
        ("embed notes.txt --model M --out z.npz", "notes.txt: not an image in a known"),
    ],
)
def test_bad_input_is_one_line(cli, model, tmp_path, argv, message):
    Image.fromarray(scene(20, 20)).save(tmp_path / "b.png")
    Image.fromarray(scene(20, 20)).save(tmp_path / "picture.png")
    (tmp_path / "notes.txt").write_text("hello, hello, hello")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.npz").mkdir()
    words = {"M": model, "''": ""}
    code, out, err = cli(*(words.get(word, word) for word in argv.split()))
    assert code == 2 and len(err) == 1, err
    assert message in err[0]
    assert err[0].startswith("siglip-jax") and ": error: " in err[0]
    assert out in ("", "image\tlabel\tprobability\tlogit\n")
    assert not (tmp_path / "z.npz").exists()


def test_the_wrong_vocabulary_is_named_before_the_weights_are_read(cli, model):
    wrong = Path("wrong")
    shutil.copytree(model, wrong)
    card = json.loads((wrong / "siglip_jax.json").read_text())
    card["profile"]["text"]["vocabulary"] = "gemma"
    (wrong / "siglip_jax.json").write_text(json.dumps(card))
    # The header is read to know the model, the tensors behind it never are.
    weights = (wrong / "weights.safetensors").read_bytes()
    header = 8 + int.from_bytes(weights[:8], "little")
    (wrong / "weights.safetensors").write_bytes(weights[:header] + b"\xff" * len(weights[header:]))
    Image.fromarray(scene(20, 20)).save("b.png")
    code, out, err = cli("score", "b.png", "--model", "wrong", "--labels", "cat")
    assert (code, out, len(err)) == (2, "", 1)
    assert "tokenizer.model: wrong vocabulary: it has 320 pieces; the model needs gemma" in err[0]


def test_several_problems_are_still_one_line(cli, model, tmp_path, pictures):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    arrays = safetensors.numpy.load_file(broken / "weights.safetensors")
    arrays.pop("b")
    arrays |= {"x": np.ones(2, np.float32), "t": np.ones((1, 1), np.float32)}
    safetensors.numpy.save_file(arrays, broken / "weights.safetensors")
    code, _, err = cli("score", pictures, "--model", broken, "--labels", "cat")
    assert code == 2
    assert err == [
        f"siglip-jax: error: {broken / 'weights.safetensors'} does not fit the model: 3 problems; "
        "missing: b (1,); unexpected: x (2,); wrong shape: t is (1, 1), expected (1,)"
    ]


def test_a_machine_that_jax_cannot_use(cli, model, monkeypatch, pictures):
    def no_devices(*args):
        raise RuntimeError("Unable to initialize backend 'tpu': no such thing\nand more")

    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setattr("siglip_jax.programs.make_mesh", no_devices)
    code, _, err = cli("score", pictures, "--model", model, "--labels", "cat")
    assert code == 2
    assert err == [
        "siglip-jax: error: jax cannot use a device (JAX_PLATFORMS is 'tpu'): "
        "Unable to initialize backend 'tpu': no such thing"
    ]
