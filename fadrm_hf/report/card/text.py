"""How cards are rendered: templates, and filters that print numbers and keep foreign text in its place."""

import json
import shlex
from functools import cache
from importlib.resources import files as resources
from typing import Any

import jinja2

from fadrm_hf.runtime.terminal import duration

__all__ = ["NOT_MEASURED", "card_environment", "cell", "duration", "link", "percent", "quoted", "render", "size"]

NOT_MEASURED = "not measured"


def render(template: str, **values: Any) -> str:
    """The text of a template in `cards/`."""
    return _compiled(template).render(values)


@cache
def _compiled(template: str) -> jinja2.Template:
    return card_environment().from_string((resources("fadrm_hf.cards") / template).read_text("utf-8"))


def card_environment() -> jinja2.Environment:
    """In which all cards are rendered; its filters keep text in its table cell and print numbers."""
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"cell": cell, "link": link, "quoted": quoted, "shell": shlex.quote}
    environment.filters |= {"percent": percent, "size": size, "duration": duration}
    return environment


def cell(text: Any) -> str:
    """Text that cannot leave its table cell, nor be taken for markup."""
    plain = " ".join(str(text).split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("|", r"\|").replace("`", "'")


def quoted(text: Any) -> str:
    """Text as a string of Python that cannot leave its quotes nor its fence, nor be taken for markup."""
    return json.dumps(str(text), ensure_ascii=False).replace("`", r"\u0060").replace("<", r"\u003c")


def link(address: str | None) -> str | None:
    """An address that may stand between the brackets of a Markdown link; `None` for anything but the web's."""
    if address is None or not address.startswith(("https://", "http://")):
        return None
    return "".join(letter if letter.isalnum() or letter in "-._~:/?#@!&+,;=%" else "" for letter in address)


def percent(fraction: float | None) -> str:
    """A fraction in percent."""
    return NOT_MEASURED if fraction is None else f"{100 * fraction:.1f} %"


def size(num_bytes: float | None) -> str:
    """Bytes in the unit that leaves the fewest digits."""
    if num_bytes is None:
        return NOT_MEASURED
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"
