"""A page served to browsers of this machine, for those that open no pages from disk."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


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
    with ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    """A handler that does not log each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
