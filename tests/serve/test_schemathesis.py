"""Requests made from the OpenAPI document, right and wrong ones: none makes the server fail."""

import collections
import os

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def ask_all(url, most):
    """How many cases of about `most` had which status."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    takers = [each for each in operations if each.method == "post"]
    statuses = collections.Counter()
    for operation in operations:
        if operation.method == "post":
            for mode in GenerationMode:
                # Of any model, which is mostly none, and of the one that there is.
                count = most // (4 * len(takers)) + 1
                _ask(operation.as_strategy(generation_mode=mode), count, statuses)
                named = {"name": "emoji", "id": "emoji", "version": "1"}
                named = {each.name: named[each.name] for each in operation.path_parameters}
                cases = operation.as_strategy(
                    generation_mode=mode, **({"path_parameters": named} if named else {})
                )
                _ask(cases.map(_likely_right), count, statuses)
        else:  # there is little to vary, and nothing that could be wrong
            _ask(operation.as_strategy(), 5, statuses)
    return statuses


def _likely_right(case):
    """Without what is nearly always wrong, so that more than checks of it are reached."""
    if isinstance(case.body, dict):
        for name in ("model", "dimensions", "padding", "normalized", "messages"):
            case.body.pop(name, None)
    return case


def _ask(cases, count, statuses):
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case):
        response = case.call()
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()


def test_no_request_makes_the_server_fail(url):
    """200 requests; `make fuzz` makes 2,000."""
    most = min(int(os.environ.get("FUZZ_CASES", "200")), 2000)
    statuses = ask_all(url, most)
    print(dict(statuses))
    assert statuses.total() >= most
    assert statuses[200] and statuses[400]
