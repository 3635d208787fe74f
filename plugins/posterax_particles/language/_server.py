"""What passes between us and a server besides texts: keys, refusals, and how long to wait."""

import json
import math
import os
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from posterax import PosteraxError

HOPELESS = frozenset({401, 403, 404, 405})  # statuses that no other request will change
CURES = {
    401: "Give `api_key`, or set the environment variable OPENAI_API_KEY.",
    403: "Give an `api_key` that may use this model.",
    404: "Check the address (that of a language model usually ends in /v1) and `model`.",
}


class ServerError(PosteraxError, RuntimeError):
    """A server that refused a request, or gave no usable answer after all tries; the message has the cure.

    - `status`: of HTTP; None where no answer came.
    - `tries`: requests that were made.
    - `unreachable`: nobody answered at that address.
    - `refused`: the same request would be refused again.
    - `out_of_time`: given up, as the run's deadline comes before the next try.
    """

    def __init__(
        self, message: str, *, status: int | None = None, tries: int = 1, unreachable: bool = False,
        refused: bool = False, out_of_time: bool = False,
    ):  # fmt: skip
        super().__init__(message)
        self.status, self.tries, self.unreachable = status, tries, unreachable
        self.refused, self.out_of_time = refused, out_of_time


class Secret:
    """A key that neither `repr` nor a pickle shows. One that came from the environment is read there again.

    - `value`: the key; None for that of the environment variable `variable`.
    """

    def __init__(self, value: str | None, variable: str | None = None):
        self.variable = variable
        self._value = (os.environ.get(variable or "", "") if value is None else value).strip()
        if not self._value.isascii() or not self._value.isprintable():
            raise ValueError("`api_key` must be printable ASCII; look for quotes or line ends that were pasted along.")

    def __repr__(self):
        return "Secret(***)" if self._value else "Secret(none)"

    def __reduce__(self):
        return Secret, (None, self.variable)

    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def scrub(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self._value, "***") if self._value else text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as a number or as a date (RFC 9110, section 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    try:
        wait = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        wait = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    return max(0.0, wait) if math.isfinite(wait) else None


def words(content: bytes) -> str:
    """What the server says of a refusal, in whatever form."""
    text = content[:4000].decode("utf-8", "replace")
    try:
        found = json.loads(text)
        for name in ("error", "detail", "message"):
            found = found.get(name, found) if isinstance(found, dict) else found
    except ValueError:
        found = text
    return (found if isinstance(found, str) else json.dumps(found)) or "nothing more"
