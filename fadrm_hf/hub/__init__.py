"""The Hub: session, repositories, retried requests, artifacts read from it, and the one publisher.

Code that needs only the Hub belongs here; networks, students and results do not.
"""

from fadrm_hf.hub.repository import RepoName, fetch_all, open_artifact, parse_name
from fadrm_hf.hub.session import require_login, talking_to_hub

__all__ = ["RepoName", "fetch_all", "open_artifact", "parse_name", "require_login", "talking_to_hub"]
