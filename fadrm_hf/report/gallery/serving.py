"""A page served to browsers of this machine, for those that open no pages from disk."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

_HOSTS = ("127.0.0.1", "localhost")
_POLL = 0.05  # seconds within which it notices that it is to end


def _name_of(host: str) -> str | None:
    """Return the name in a Host header, without its port; `None` if there is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve a folder to this machine alone while the block lasts.

    Args:
        folder: The folder.
        port: The port; 0 for any that is free.

    Yields:
        The address.

    Raises:
        OSError: If the port is taken.
    """
    with ThreadingHTTPServer(("127.0.0.1", port), partial(_OfThisMachine, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(_POLL,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _OfThisMachine(SimpleHTTPRequestHandler):
    """A handler that gives the files of its folder, and those alone, to pages of this machine; it logs nothing.

    A page from elsewhere can give its own name this machine's address (DNS rebinding); its requests still say that
    name, and so are refused.
    """

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Send the head of a reply; refuse other hosts, folders and whatever leads out of the folder."""
        if _name_of(self.headers.get("Host", "")) not in _HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN, "This page is for browsers of this machine")
            return None
        if not self._is_inside():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def _is_inside(self) -> bool:
        """Return whether a file of the folder is asked for, or its page; a link that leads out of it is no file."""
        try:
            asked = Path(self.translate_path(self.path))
            file = asked / "index.html" if asked.is_dir() else asked
            return file.is_file() and file.resolve().is_relative_to(Path(self.directory).resolve())
        except (OSError, ValueError):
            return False

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
