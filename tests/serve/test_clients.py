"""The clients that people have, unchanged, against the server in a process of its own."""

import json
import re
import shutil
import subprocess

import huggingface_hub as hub
import numpy as np
import pytest
from emoji_pictures import PICTURES, as_base64, as_uri
from paths import REPO

TEXTS = ["red apple", "dog face", "é"]
LABELS = ["red apple", "dog face", "blue car"]


def curl_lines():
    """Those of the README and of docs/serving.md that stand complete, with their pages."""
    for page in ("README.md", "docs/serving.md"):
        text = (REPO / page).read_text("utf-8")
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            for command in re.split(r"\n(?=\S)", block.replace("\n\n", "\n")):
                if command.startswith("curl ") and "search" not in command:
                    yield pytest.param(command, id=f"{page} {command[:60]}")


@pytest.mark.parametrize("command", list(curl_lines()))
def test_curl_as_it_is_shown(url, tmp_path, command):
    if not shutil.which("curl"):
        pytest.skip("no curl: apt-get install curl")
    (tmp_path / "photo.jpg").write_bytes(PICTURES[0].read_bytes())
    command = command.replace("localhost:8000", url).replace("ViT-B-16-SigLIP", "emoji")
    command = command.replace("data:image/jpeg;base64,...", as_uri(PICTURES[0]))
    done = subprocess.run(
        ["bash", "-c", command.replace("curl ", "curl -sS ", 1)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["object"] == "list", done.stdout


def test_there_are_curl_lines():
    assert len(list(curl_lines())) >= 4


@pytest.fixture(scope="module")
def openai(url):
    import openai as package

    with package.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_openai_texts(openai, scorer, options):
    answer = openai.embeddings.create(model="emoji", input=TEXTS, **options)
    found = [each.embedding for each in answer.data]
    np.testing.assert_allclose(found, scorer.embed_texts(TEXTS), atol=1e-5)
    assert answer.usage.total_tokens > 0 and answer.model == "emoji"


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_openai_images(openai, scorer, options):
    asked = [as_uri(file) for file in PICTURES[:3]]
    answer = openai.embeddings.create(model="emoji", input=asked, **options)
    found = [each.embedding for each in answer.data]
    np.testing.assert_allclose(found, scorer.embed_images(PICTURES[:3]), atol=1e-5)


def test_openai_one_text(openai, scorer):
    (found,) = openai.embeddings.create(model="emoji", input=TEXTS[0]).data
    np.testing.assert_allclose(found.embedding, scorer.embed_texts(TEXTS[:1])[0], atol=1e-5)


def test_openai_models(openai):
    assert [each.id for each in openai.models.list()] == ["emoji"]
    assert openai.models.retrieve("emoji").id == "emoji"


def test_openai_errors(openai):
    import openai as package

    with pytest.raises(package.NotFoundError, match="did you mean emoji") as caught:
        openai.embeddings.create(model="emojy", input="a")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    with pytest.raises(package.BadRequestError, match="cannot be shortened") as caught:
        openai.embeddings.create(model="emoji", input="a", dimensions=2)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("path", ["/", "/models/emoji"])
@pytest.mark.parametrize("template", [None, "a {}"])
def test_hugging_face(url, scorer, path, template):
    client = hub.InferenceClient(token="unused")
    found = client.zero_shot_image_classification(
        PICTURES[0].read_bytes(), LABELS, model=url + path, hypothesis_template=template
    )
    expected = scorer.score(PICTURES[:1], LABELS, templates=[template or "This is a photo of {}."])
    (ranked,) = expected.top(3)
    assert [each.label for each in found] == [hit.label for hit in ranked]
    np.testing.assert_allclose(
        [each.score for each in found], [hit.probability for hit in ranked], atol=1e-5
    )


def test_hugging_face_errors(url):
    client = hub.InferenceClient(model=f"{url}/models/emojy", token="unused")
    with pytest.raises(hub.errors.HfHubHTTPError, match="did you mean emoji") as caught:
        client.zero_shot_image_classification(PICTURES[0].read_bytes(), LABELS)
    assert caught.value.response.status_code == 404


@pytest.fixture(scope="module")
def triton(url):
    package = pytest.importorskip(
        "tritonclient.http",
        reason="needs tritonclient[http]: make check-engines",
        exc_type=ImportError,
    )
    client = package.InferenceServerClient(url.removeprefix("http://"))
    yield client
    client.close()


def tensor(name, elements, **options):
    import tritonclient.http as package

    made = package.InferInput(name, [len(elements)], "BYTES")
    return made.set_data_from_numpy(np.array(elements, dtype=object), **options)


def test_triton_readiness(triton):
    assert triton.is_server_live() and triton.is_server_ready()
    assert triton.is_model_ready("emoji") and triton.is_model_ready("emoji", "1")
    assert not triton.is_model_ready("emojy")
    assert triton.get_server_metadata()["name"] == "siglip_jax"
    assert triton.get_model_metadata("emoji")["inputs"][0]["name"] == "image"


@pytest.mark.parametrize("ask", ["nothing", "binary", "json"])
def test_triton_images(triton, scorer, ask):
    import tritonclient.http as package

    outputs = [package.InferRequestedOutput("image_embedding", binary_data=ask == "binary")]
    found = triton.infer(
        "emoji",
        [tensor("image", [file.read_bytes() for file in PICTURES[:3]])],
        outputs=None if ask == "nothing" else outputs,
        request_id="7",
    )
    assert found.get_response()["id"] == "7"
    np.testing.assert_allclose(
        found.as_numpy("image_embedding"), scorer.embed_images(PICTURES[:3]), atol=1e-5
    )


@pytest.mark.parametrize("binary", [True, False])
def test_triton_texts_and_base64(triton, scorer, binary):
    inputs = [
        tensor("text", TEXTS, binary_data=binary),
        tensor("image", [as_base64(file) for file in PICTURES[:2]], binary_data=binary),
    ]
    found = triton.infer("emoji", inputs, model_version="1")
    np.testing.assert_allclose(
        found.as_numpy("text_embedding"), scorer.embed_texts(TEXTS), atol=1e-5
    )
    np.testing.assert_allclose(
        found.as_numpy("image_embedding"), scorer.embed_images(PICTURES[:2]), atol=1e-5
    )


def test_triton_errors(triton):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="did you mean emoji") as caught:
        triton.infer("emojy", [tensor("text", TEXTS)])
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"inputs\[0\].data\[0\]: "):
        triton.infer("emoji", [tensor("image", [b"\xff\xd8no image"])])
