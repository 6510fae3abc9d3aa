"""What is wrong with a request, in OpenAI's form. It does not know requests."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tessera.errors import TesseraError
from tessera.serve.orders import Full, Late, Refusal

TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error",
    405: "invalid_request_error", 408: "invalid_request_error", 413: "invalid_request_error", 429: "rate_limit_error",
}  # fmt: skip
CODES = {401: "invalid_api_key", 413: "request_too_large", 429: "rate_limit_exceeded", 408: "request_timeout"}
DAMAGED = "The server could not draw this; its log says why."


class Refused(HTTPException):
    """An answer that is an error. It is a kind of HTTPException so that nobody on the way turns it into another."""

    def __init__(self, status: int, sentence: str, param: str | None = None, code: str | None = None, after: int = 0):
        super().__init__(status, sentence, {"retry-after": str(after)} if after else None)
        self.param, self.code = param, code or CODES.get(status)

    def body(self) -> dict[str, dict[str, str | None]]:
        kind = TYPES.get(self.status_code, "server_error")
        message = self.detail.encode("utf-8", "backslashreplace").decode()
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, self.headers)


def refused(error: Exception) -> Refused:
    """The answer for what went wrong after a request was understood."""
    match error:
        case Refused():
            return error
        case HTTPException():
            detail = str(error.detail) if error.detail else HTTPStatus(error.status_code).phrase
            return Refused(error.status_code, detail if detail.endswith(".") else f"{detail}.")
        case Full():
            return Refused(429, str(error), after=error.seconds)
        case Refusal():
            return Refused(
                503, str(error), code="timeout" if isinstance(error, Late) else "draining", after=error.seconds
            )
        case TesseraError():
            return Refused(500, str(error), code="drawing_failed")
        case _:
            return Refused(500, DAMAGED, code="drawing_failed")


def asked_wrongly(error: TesseraError, param: str | None = None) -> Refused:
    """The client's mistake, in the house's own sentence. An option that the sentence begins with is its parameter."""
    first = str(error).partition(" ")[0].replace("-", "_")
    return Refused(400, str(error), param or (first if first.isidentifier() and first.islower() else None))
