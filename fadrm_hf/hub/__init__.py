"""The Hub: session, repositories, requests that are retried, artifacts read from it, and the one publisher.

Enters what needs the Hub and no network, student or result.
"""

from fadrm_hf.hub.repository import RepoName, fetch_all, open_artifact, parse_name
from fadrm_hf.hub.session import require_login, talking_to_hub

__all__ = ["RepoName", "fetch_all", "open_artifact", "parse_name", "require_login", "talking_to_hub"]
