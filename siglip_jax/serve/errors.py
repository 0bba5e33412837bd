"""What a client is told when a request is refused: OpenAI's shape, a status, no path of ours."""

import msgspec

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


class Problem(msgspec.Struct):
    """`error` of an answer, as OpenAI has it.

    Attributes:
      message: what was expected, what came, what to do.
      type: the kind, such as "invalid_request_error".
      param: the field that it is about, such as "labels[2]".
      code: for programs, such as "model_not_found".
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ApiError(Exception):
    """A request that is refused.

    Args:
      status: of HTTP.
      message: one line for whoever wrote the request.
      param: the field that it is about.
      code: for programs.
      headers: of the answer, such as `Retry-After`.

    >>> ApiError(404, "no model is called x", param="model").problem.param
    'model'
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    @property
    def problem(self) -> Problem:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else _TYPES[400])
        return Problem(self.message, kind, self.param, self.code)
