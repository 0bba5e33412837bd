"""The OpenAPI document of a service, made of the types that its handlers take and give."""

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from siglip_jax.serve.operation import Operation

_REFUSED = {
    "400": "wrong, in a field that the message names",
    "401": "no key, or a wrong one",
    "404": "no such model",
    "408": "the body did not arrive in time",
    "413": "too large",
    "415": "no type of body that is taken",
    "429": "busy; Retry-After says for how long",
    "503": "starting or stopping",
    "504": "not answered in time",
}
_IN_PATH = re.compile(r"\{(\w+)(:\w+)?\}")


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """OpenAPI 3.1 of `operations`."""
    types = [kind for each in operations for kind in (each.takes, each.gives, each.fails)]
    known = list(dict.fromkeys(kind for kind in types if kind is not None))
    schemas, components = msgspec.json.schema_components(
        known, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(known, schemas, strict=True))
    paths: dict[str, Any] = {}
    for each in operations:
        path = _IN_PATH.sub(r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "siglip_jax",
            "version": importlib.metadata.version("siglip-jax"),
            "description": "Sigmoid probabilities of images and labels, and embeddings of both.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_")
    answers: dict[str, Any] = {"200": {"description": "the answer"}}
    if operation.gives is not None:
        answers["200"]["content"] = {"application/json": {"schema": schema_of[operation.gives]}}
    refused = _REFUSED if operation.admitted else {k: _REFUSED[k] for k in ("401", "404", "503")}
    for status, why in refused.items():
        answers[status] = {
            "description": why,
            "content": {"application/json": {"schema": schema_of[operation.fails]}},
        }
    made: dict[str, Any] = {
        "operationId": name, "summary": operation.summary, "responses": answers
    }  # fmt: skip
    parameters = [
        {"name": found[1], "in": "path", "required": True, "schema": {"type": "string"}}
        for found in _IN_PATH.finditer(operation.path)
    ]
    if parameters:
        made["parameters"] = parameters
    if operation.takes is not None:
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[operation.takes]}},
        }
    return made
