"""Speaking to the Hub: who is logged in, and what its refusals mean. A token is never shown nor stored here."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2: the client's own

from fadrm_hf.errors import HubError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token of yours"
_REMEDIES = {
    400: "the Hub does not accept this request; upgrade with: pip install -U huggingface_hub",
    401: f"the token is missing, expired or wrong; {LOG_IN}",
    403: "the token may not do this; use one with write access to the repository (hf auth login)",
    404: "there is no such thing on the Hub; check the name",
    409: "something of this name exists already; choose another name, or look at what is there",
    412: "somebody committed meanwhile; run the same command again",
    429: "too many requests; wait a few minutes, then run the same command again",
    507: "the Hub has no space left for this; free some of your storage there, then run the same command again",
}
NOT_THE_HUB = (
    "what answered is not the Hub, but perhaps a proxy or the login page of a network: open the Hub in a browser, "
    "then run the same command again"
)
_SERVER_TROUBLE = "the Hub has trouble; what has been sent stays there: run the same command again in a while"


def require_login() -> HfApi:
    """Return the Hub's client, with a token that the Hub knows.

    Raises:
        HubError: If there is no token, the Hub refuses it, or cannot be reached.
    """
    if get_token() is None:
        raise HubError(f"you are not logged in to the Hub; {LOG_IN} with write access, then run the command again")
    api = HfApi()
    with talking_to_hub("logging in"):
        api.whoami()
    return api


@contextmanager
def talking_to_hub(what: str) -> Iterator[None]:
    """Turn what the client raises into a `HubError` that says how to resume.

    Args:
        what: What is being done, e.g. "reading org/name"; the message begins with it.
    """
    try:
        yield
    except GatedRepoError as error:
        raise HubError(
            f"{what}: access is granted on request; accept the terms on its page on the Hub, then {LOG_IN}"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"{what}: there is no such repository, or it is private and this token may not see it; check the name,"
            f" or {LOG_IN}"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(
            f"{what}: there is no such revision; give a tag, branch or commit of the repository with --revision"
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise HubError(
            f"{what}: it is not in the cache and the Hub cannot be reached; go online (and unset HF_HUB_OFFLINE), then"
            " run the same command again"
        ) from error
    except EntryNotFoundError as error:
        raise HubError(f"{what}: the repository has no such file; it is no artifact, or was changed") from error
    except HFValidationError as error:
        raise HubError(f"{what}: {error}; expected ORG/NAME, e.g. 'org/fadrm-in1k-ipc10'") from error
    except HfHubHTTPError as error:
        raise HubError(f"{what}: {_explain(error)}") from error
    except json.JSONDecodeError as error:
        raise HubError(f"{what}: {NOT_THE_HUB}") from error
    except (httpx.HTTPError, ConnectionError) as error:
        reason = str(error) or type(error).__name__
        raise HubError(
            f"{what}: the connection to the Hub failed ({reason}); run the same command again to resume"
        ) from error


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that the Hub answered with, if it did."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _explain(error: HfHubHTTPError) -> str:
    status = status_of(error)
    remedy = _REMEDIES.get(status or 0, _SERVER_TROUBLE)
    said = f" ({error.server_message})" if error.server_message else ""
    return f"status {status}{said}: {remedy}"
