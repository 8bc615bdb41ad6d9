"""Rendering of cards: templates, and filters that format numbers and escape foreign text."""

import json
import re
import shlex
from functools import cache
from importlib.resources import files as resources
from typing import Any

import jinja2

from fadrm_hf.runtime.terminal import CONTROL, duration, printable

NOT_MEASURED = "not measured"
_ADDRESS = re.compile(
    r"://|\bwww\.|\w@[\w.-]*\.\w|\b(mailto|xmpp):", re.IGNORECASE
)  # what GitHub's Markdown links by itself


def render(template: str, **values: Any) -> str:
    """Render a template of `cards/`."""
    return _compiled(template).render(values)


@cache
def _compiled(template: str) -> jinja2.Template:
    return card_environment().from_string((resources("fadrm_hf.cards") / template).read_text("utf-8"))


def card_environment() -> jinja2.Environment:
    """Return the environment of all cards, whose filters escape table cells and format numbers."""
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"cell": cell, "code": in_code, "link": link, "quoted": quoted, "shell": shlex.quote}
    environment.filters |= {"percent": percent, "size": size, "duration": duration, "unbroken": unbroken}
    return environment


def cell(text: Any) -> str:
    """Escape text so that it stays in its table cell and is not read as markup, neither as a link nor as a picture.

    An address, which the Hub would make a link of, is shown as code.
    """
    plain = in_code(text)
    if _ADDRESS.search(plain):
        return f"`{plain}`"
    return plain.replace("](", r"]\(").replace("[^", r"\[^")


def in_code(text: Any) -> str:
    """Escape text that is shown between backticks."""
    plain = " ".join(printable(str(text)).split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("|", r"\|").replace("`", "'")


def quoted(text: Any) -> str:
    """Return text as a Python string that stays in its quotes and its fence and is not read as markup."""
    string = json.dumps(str(text), ensure_ascii=False).replace("`", r"\u0060").replace("<", r"\u003c")
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", string)


def link(address: str | None) -> str | None:
    """Return an address that is safe in a Markdown link; `None` for anything but a web address."""
    if address is None or not address.startswith(("https://", "http://")):
        return None
    return "".join(letter if letter.isalnum() or letter in "-._~:/?#@!&+,;=%" else "" for letter in address)


def percent(fraction: float | None) -> str:
    """Format a fraction in percent."""
    return NOT_MEASURED if fraction is None else f"{100 * fraction:.1f} %"


def unbroken(text: str) -> str:
    """Return text in which no line ends between a number and its deviation, as in a narrow column."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def size(num_bytes: float | None) -> str:
    """Format bytes in the unit that leaves the fewest digits."""
    if num_bytes is None:
        return NOT_MEASURED
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def machine_line(machine: dict[str, Any]) -> str:
    """Describe a recorded machine in one line."""
    memory = machine.get("memory_bytes")
    cpu, capability = machine.get("cpu"), machine.get("capability")
    cpu = f"{cpu} ({capability})" if cpu and capability else cpu
    parts = [machine.get("gpu"), cpu, f"{machine['cores']} cores" if machine.get("cores") else None]
    parts.append(f"{size(memory)} of memory" if memory else None)
    return ", ".join(str(part) for part in parts if part) or "not recorded"
