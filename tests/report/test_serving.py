"""A page that is served: to this machine alone, its own files alone."""

import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fadrm_hf.report.gallery.serving import served


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    page = tmp_path / "page"
    (page / "inner").mkdir(parents=True)
    (page / "index.html").write_text("the page")
    (page / "data.js").write_text("data")
    (page / "inner/file.txt").write_text("file")
    (tmp_path / "secret").write_text("secret")
    (page / "link").symlink_to(tmp_path / "secret")
    (page / "above").symlink_to(tmp_path)
    (page / "itself.js").symlink_to("data.js")
    os.mkfifo(page / "pipe")
    with served(page) as served_at:
        yield served_at.removeprefix("http://").rstrip("/")


def asked(address: str, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or address)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read()


@pytest.mark.parametrize("path", ["/", "/index.html", "/data.js", "/inner/file.txt", "/itself.js", "/?query"])
def test_the_files_of_the_page_are_given(address, path):
    status, content = asked(address, path)
    assert status == 200 and content in (b"the page", b"data", b"file")


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1", "LOCALHOST:80"])
def test_by_every_name_of_this_machine(address, host):
    assert asked(address, "/data.js", host) == (200, b"data")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::", "@"])
def test_to_no_page_from_elsewhere(address, host, method):
    status, content = asked(address, "/data.js", host, method)
    assert status in (400, 403) and b"data" not in content


@pytest.mark.parametrize(
    "path",
    [
        "/link",
        "/above/secret",
        "/above/",
        "/inner/",
        "/inner",
        "/pipe",
        "/../secret",
        "/%2e%2e/secret",
        "/a%00b",
        "/no",
    ],
)
def test_nothing_else_is_given(address, path):
    status, content = asked(address, path)
    assert status == 404 and b"secret" not in content
