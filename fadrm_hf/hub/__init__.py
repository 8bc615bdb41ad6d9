"""The Hub: who speaks to it, what is there, and artifacts read from it."""

from fadrm_hf.hub.repository import RepoName, fetch_all, open_artifact, parse_name
from fadrm_hf.hub.session import require_login, talking_to_hub

__all__ = ["RepoName", "fetch_all", "open_artifact", "parse_name", "require_login", "talking_to_hub"]
