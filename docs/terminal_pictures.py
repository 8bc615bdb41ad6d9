"""Pictures of a terminal: docs/images/terminal-help.svg and terminal-distill.svg, of real output.

python docs/terminal_pictures.py
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "help": "fadrm-hf --help",
    "distill": "fadrm-hf distill --config recipes/configs/digits/fadrm_ipc1.yaml --tracker tensorboard",
}
# As on a terminal, but for bars, of which only the last look is wanted.
TERMINAL = {"COLUMNS": "100", "FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "OMP_NUM_THREADS": "1"}
TERMINAL["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # an active environment
WEB_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)  # a picture asks no other site for anything


def main() -> None:
    """Run each command in a folder of its own that has the recipes, and draw what it prints."""
    for name, command in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "recipes").symlink_to(ROOT / "recipes")
            path = ROOT / f"docs/images/terminal-{name}.svg"
            path.parent.mkdir(exist_ok=True)
            path.write_text(picture(name, command, shown(command, Path(folder))), encoding="utf-8")


def shown(command: str, folder: Path) -> str:
    """Return the output of a command on both streams, with colours."""
    program, *words = shlex.split(command)
    started = [str(Path(sys.executable).with_name(program)), *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(started, cwd=folder, env=os.environ | TERMINAL, text=True, check=True, **streams).stdout


def picture(name: str, command: str, output: str) -> str:
    """Draw a terminal of 100 columns in which the command was typed."""
    console = Console(record=True, width=100, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {command}", "bold"), soft_wrap=True)
    lines = Text.from_ansi(output).split("\n")
    for before, line in zip([Text(), *lines], lines, strict=False):
        if line.plain.strip() or "━" not in before.plain:  # a bar that does not move leaves a blank line behind
            console.print(line)
    return WEB_FONT.sub("", console.export_svg(title="fadrm-hf", unique_id=f"terminal-{name}"))


if __name__ == "__main__":
    main()
