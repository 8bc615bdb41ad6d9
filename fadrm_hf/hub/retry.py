"""Requests that change something on the Hub, carried out exactly once however the connection behaves."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2: the client's own

from fadrm_hf.errors import FadrmError, HubError
from fadrm_hf.hub.session import status_of, talking_to_hub

Outcome = TypeVar("Outcome")

_PASSING = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """Number and pauses of the tries of a request while the Hub has trouble.

    Attributes:
        tries: Most times that it is sent.
        first_pause: Seconds before the second try; every further pause is twice as long.
        longest_pause: Seconds that no pause exceeds, even if the Hub asks for more; it counts requests over five
            minutes.
    """

    tries: int = 7
    first_pause: float = 0.5
    longest_pause: float = 300.0


PATIENT = Patience()


def retry(
    what: str,
    send: Callable[[], Outcome],
    landed: Callable[[], Outcome | None] = lambda: None,
    patience: Patience = PATIENT,
) -> Outcome:
    """Send a request until it is carried out, and not once more.

    An answer may be lost on its way although the request was carried out. So before every new try, and before a
    refusal is believed, the Hub is asked whether an earlier try did it.

    Args:
        what: What is being done; error messages begin with it.
        send: Sends the request; called again after a passing failure.
        landed: Returns the outcome of an earlier try if the Hub shows one, else `None`; not needed for a request that
            may be carried out twice.
        patience: How often, and with what pauses.

    Raises:
        HubError: If the Hub refuses, or the trouble lasts.
    """
    for attempt in range(patience.tries):
        try:
            return _send(what, send)
        except HubError as error:
            cause = error.__cause__
            is_last = cause is None or attempt + 1 == patience.tries or not _is_passing(cause)
            if is_last and (outcome := _look(what, landed)) is not None:
                return outcome
            if cause is None or is_last:
                raise
            time.sleep(_pause(cause, attempt, patience))
        if (outcome := _look(what, landed)) is not None:
            return outcome
    raise AssertionError("the last try returns or raises")


def _send(what: str, send: Callable[[], Outcome]) -> Outcome:
    with talking_to_hub(what):
        try:
            return send()
        except (FadrmError, HFValidationError, httpx.HTTPError, json.JSONDecodeError):
            raise
        except (LocalEntryNotFoundError, RuntimeError, ValueError) as error:
            if isinstance(error.__cause__, httpx.HTTPError):  # the client wraps what befell one file
                raise error.__cause__ from error
            if isinstance(error, LocalEntryNotFoundError):
                raise
            raise HubError(f"{what}: {error}; upgrade with: pip install -U huggingface_hub") from error


def _look(what: str, landed: Callable[[], Outcome | None]) -> Outcome | None:
    """Return what the Hub shows; nothing while it does not answer."""
    try:
        with talking_to_hub(what):
            return landed()
    except HubError:
        return None


def _is_passing(cause: BaseException) -> bool:
    if isinstance(cause, HfHubHTTPError):
        return status_of(cause) in _PASSING
    return isinstance(cause, httpx.HTTPError | ConnectionError) and not isinstance(cause, OfflineModeIsEnabled)


def _pause(cause: BaseException, attempt: int, patience: Patience) -> float:
    """Return the seconds to wait: as long as the Hub asks for, else twice as long each time."""
    response = getattr(cause, "response", None)
    asked = "" if response is None else response.headers.get("Retry-After", "")
    wanted = float(asked) if asked.isdecimal() else patience.first_pause * 2**attempt
    return min(wanted, patience.longest_pause)
