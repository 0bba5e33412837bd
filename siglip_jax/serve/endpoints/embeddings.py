"""`POST /v1/embeddings`: OpenAI's, for texts and images; and what others made of it.

A string is a text, unless it is a data URI of an image or `modality` says otherwise. Jina's
objects name their kind, and so do the parts of vLLM's messages.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from siglip_jax.serve.errors import ApiError
from siglip_jax.serve.images import is_image_uri
from siglip_jax.serve.operation import Call, Operation
from siglip_jax.serve.served_model import ServedModel
from siglip_jax.serve.service import Service

Form = Literal["float", "base64"]


class Part(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Jina's way to say what an input is: one of the two."""

    text: str | None = None
    image: str | None = None


class ImageUrl(msgspec.Struct, omit_defaults=True):
    """Where an image is: a data URI, or a URL where these are fetched."""

    url: str
    detail: str | None = None


class ContentPart(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a message, as OpenAI has them."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(msgspec.Struct, omit_defaults=True):
    """A message, of which this model takes one, of one part."""

    role: str
    content: str | list[ContentPart]


class Embed(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Texts and images to embed.

    Attributes:
      input: a text, token ids of one, or a list of texts, token ids, data URIs of images and
        objects {"text"} or {"image"}.
      messages: in the place of `input`: one message with one text or one image.
      model: by its name; the first of the service unless given.
      encoding_format: numbers, or their bytes, little-endian float32, in base64.
      embedding_type: another name of it.
      dimensions: must be the model's own number, if given: its rows cannot be shortened.
      modality: what strings of `input` stand for.
      normalized: must be true: embeddings have unit norm.
      padding: must be "max_length": the model knows texts of its full length only.
      user: not used.
    """

    input: str | list[str | int | list[int] | Part] | None = None
    messages: list[Message] | None = None
    model: str | None = None
    encoding_format: Form | None = None
    embedding_type: Form | None = None
    dimensions: int | None = None
    modality: Literal["text", "image"] | None = None
    normalized: bool = True
    padding: str = "max_length"
    user: str | None = None


class Embedding(msgspec.Struct, kw_only=True):
    """A row of unit norm."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str


class Usage(msgspec.Struct, omit_defaults=True):
    """Tokens without padding, images, and texts that were longer than the model reads."""

    prompt_tokens: int
    total_tokens: int
    images: int = 0
    cut_texts: int = 0


class Embedded(msgspec.Struct, kw_only=True):
    """The answer."""

    object: str = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Input(NamedTuple):
    """One thing to embed: a text, token ids, or what stands for an image."""

    kind: Literal["text", "ids", "image"]
    value: Any
    param: str


async def embeddings(call: Call) -> Embedded:
    """An embedding of each input."""
    asked: Embed = call.body
    model = call.service.model(asked.model)
    _refuse(asked, model)
    inputs = _inputs(asked)
    z, usage = await embedded(call.service, model, inputs)
    form = asked.encoding_format or asked.embedding_type or "float"
    return Embedded(
        data=[Embedding(index=i, embedding=encoded(row, form)) for i, row in enumerate(z)],
        model=model.name,
        usage=usage,
    )


async def embedded(
    service: Service, model: ServedModel, inputs: Sequence[Input]
) -> tuple[np.ndarray, Usage]:
    """Rows (n, d) float32 of inputs, in their order.

    Raises:
      ApiError: 400 that names the input, 429.
    """
    of: dict[str, list[Input]] = {"text": [], "ids": [], "image": []}
    for each in inputs:
        of[each.kind].append(each)
    if (texts := len(of["text"]) + len(of["ids"])) > service.limits.texts:
        most = service.limits.texts
        raise ApiError(400, f"{texts:,} texts in a request; at most {most:,} are taken")
    rows: dict[str, Iterator[np.ndarray]] = {}
    tokens = cut = 0
    if images := of["image"]:
        params = [each.param for each in images]
        files = await service.images([each.value for each in images], params)
        rows["image"] = iter(await model.embed_images(files, params))
    if of["text"]:
        ids, tokens, cut = await model.encode([each.value for each in of["text"]], "input")
        rows["text"] = iter(await model.embed_ids(ids, "input"))
    if of["ids"]:
        ids = model.checked_ids([(each.value, each.param) for each in of["ids"]])
        tokens += sum(len(each.value) for each in of["ids"])
        rows["ids"] = iter(await model.embed_ids(ids, "input"))
    z = np.stack([next(rows[each.kind]) for each in inputs])
    return z, Usage(tokens, tokens, len(images), cut)


def encoded(row: np.ndarray, form: Form) -> list[float] | str:
    """A row as numbers, or as base64 of little-endian float32.

    >>> encoded(np.float32([0.5, 1]), "float"), encoded(np.float32([0.5, 1]), "base64")
    ([0.5, 1.0], 'AAAAPwAAgD8=')
    """
    if form == "base64":
        return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()
    return row.tolist()


def _refuse(asked: Embed, model: ServedModel) -> None:
    width = model.scorer.width()
    if asked.dimensions not in (None, width):
        raise ApiError(
            400,
            f"dimensions: {model.name} has {width}, and its embeddings cannot be shortened; got "
            f"{asked.dimensions}",
            param="dimensions",
        )
    if not asked.normalized:
        raise ApiError(400, "normalized: embeddings have unit norm", param="normalized")
    if asked.padding != "max_length":
        raise ApiError(
            400,
            f"padding: expected max_length, got {asked.padding[:40]!r}; other padding gives other "
            "embeddings, which are wrong",
            param="padding",
        )
    forms = {asked.encoding_format, asked.embedding_type} - {None}
    if len(forms) > 1:
        raise ApiError(
            400, "encoding_format and embedding_type say two things", param="embedding_type"
        )


def _inputs(asked: Embed) -> list[Input]:
    if (asked.input is None) == (asked.messages is None):
        said = "give input or messages, not both" if asked.messages else "'input' is missing"
        raise ApiError(400, said, param="input")
    if asked.messages is not None:
        return [_of_messages(asked.messages)]
    given = asked.input
    if isinstance(given, str):
        return [string_input(given, "input", asked.modality)]
    assert given is not None
    if not given:
        raise ApiError(400, "input: the list is empty; give at least one text", param="input")
    if all(isinstance(each, int) for each in given):
        return [Input("ids", given, "input")]
    return [_of_part(each, f"input[{i}]", asked.modality) for i, each in enumerate(given)]


def _of_part(given: Any, param: str, modality: str | None) -> Input:
    if isinstance(given, str):
        return string_input(given, param, modality)
    if isinstance(given, list):
        return Input("ids", given, param)
    if isinstance(given, int):
        raise ApiError(400, f"{param}: token ids and other inputs are mixed", param=param)
    return either_input(given.text, given.image, param)


def string_input(text: str, param: str, modality: str | None = None) -> Input:
    """What a string stands for: an image if it is the data URI of one, unless `modality` says.

    Raises:
      ApiError: 400 for an empty text.
    """
    if modality == "image" or (modality is None and is_image_uri(text)):
        return Input("image", text, param)
    return text_input(text, param)


def text_input(text: str, param: str) -> Input:
    """A text.

    Raises:
      ApiError: 400 for an empty one.
    """
    if not text.strip():
        raise ApiError(400, f"{param}: the text is empty", param=param)
    return Input("text", text, param)


def either_input(text: str | None, image: str | None, param: str) -> Input:
    """A text or an image, where a request says which.

    Raises:
      ApiError: 400 for both or none, or an empty text.
    """
    if text is not None and image is None:
        return text_input(text, param)
    if image is not None and text is None:
        return Input("image", image, param)
    raise ApiError(400, f"{param}: expected a text or an image, one of them", param=param)


def _of_messages(messages: list[Message]) -> Input:
    parts = [part for message in messages for part in _parts(message)]
    if len(parts) != 1:
        raise ApiError(
            400,
            f"messages: expected one text or one image, got {len(parts)} parts; this model embeds "
            "each alone, and never several as one",
            param="messages",
        )
    (part,) = parts
    url = None if part.image_url is None else part.image_url.url
    return either_input(part.text, url, "messages")


def _parts(message: Message) -> list[ContentPart]:
    if isinstance(message.content, str):
        return [ContentPart("text", message.content)]
    return message.content


OPERATIONS = tuple(
    Operation(
        method="POST",
        path=path,
        handle=embeddings,
        summary="Embeddings of texts and images",
        takes=Embed,
        gives=Embedded,
    )
    for path in ("/v1/embeddings", "/embeddings")
)
