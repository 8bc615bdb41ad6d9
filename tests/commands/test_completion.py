"""Completion as shells do it: the script is sourced, and words are completed by what it registers."""

import fcntl
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import termios

import pytest

from fadrm_hf.cli import main
from fadrm_hf.commands.catalogue import COMMANDS
from fadrm_hf.config.architectures import ARCHITECTURES
from fadrm_hf.config.datasets import PRESETS
from fadrm_hf.config.protocols import PROTOCOLS
from fadrm_hf.methods import METHODS


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script for bash, made as users make it."""
    folder = tmp_path_factory.mktemp("completion")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        written = folder / "fadrm-hf.bash"
        with open(written, "w") as file:
            patch.setattr(sys, "stdout", file)
            assert main(["--print_completion", "bash"]) == 0
    assert list(folder.iterdir()) == [written]
    return written


def completed(script, *words: str) -> list[str]:
    """What bash offers for the last of some words."""
    line = f"""
        source {script}
        complete -p fadrm-hf | grep -q _shtab_fadrm_hf || exit 3
        COMP_WORDS=({shlex.join(("fadrm-hf", *words))}) COMP_CWORD={len(words)} COMPREPLY=()
        _shtab_fadrm_hf
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=script.parent)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([""], list(COMMANDS)),
        (["re"], ["recode", "reproduce"]),
        (["distill", "--recover.p"], ["--recover.padding", "--recover.precision"]),
        (["distill", "--recover.precision", "b"], ["bf16"]),
        (["distill", "--method", ""], list(METHODS)),
        (["distill", "--source.preset", ""], list(PRESETS)),
        (["compare", "--settings", "--num"], ["--num_seeds"]),
        (["train-student", "run", "--student", ""], list(ARCHITECTURES)),
        (["train-student", "run", "--name", ""], list(PROTOCOLS)),
        (["estimate", "--proc"], ["--processes"]),
        (["verify", "--"], ["--help", "--config", "--json", "--leakage", "--num_steps", "--print_config", "--quiet",
                            "--revision", "--source.name"]),
        (["methods", "--"], ["--help", "--json", "--quiet"]),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_bash_completes(script, words, expected):
    assert sorted(completed(script, *words)) == sorted(expected)


def test_every_option_of_distill_is_completed(script, capsys):
    with pytest.raises(SystemExit):
        main(["distill", "--help"])
    shown = {word.strip(",") for line in capsys.readouterr().out.splitlines() for word in line.split()[:2]}
    options = {word for word in shown if word.startswith("--") and "=" not in word}
    offered = set(completed(script, "distill", "--"))
    assert len(options) > 80 and options - offered <= {"--print_shtab"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_of_their_own(place, capsys, shell):
    assert main([f"--print_completion={shell}"]) == 0
    shown = capsys.readouterr().out
    assert {"zsh": "#compdef fadrm-hf", "tcsh": "complete fadrm-hf"}[shell] in shown and "rank-architectures" in shown


INIT = "autoload -U compinit; compinit -u"


@pytest.mark.parametrize(
    ("shell", "ready"),
    [
        ("zsh", f"{INIT}; source script; PS1='re''ady> '"),
        ("zsh", f"{INIT}; eval \"$(cat script)\"; PS1='re''ady> '"),
        ("zsh", f"mkdir f; cp script f/_fadrm-hf; fpath=($PWD/f $fpath); {INIT}; PS1='re''ady> '"),
        ("tcsh", "source script; set edit; set prompt = 're''ady> '"),
    ],
    ids=["zsh source", "zsh eval", "zsh fpath", "tcsh source"],
)
def test_other_shells_complete_what_is_typed(place, capsys, shell, ready):
    """The real shell on a terminal of its own, in which Tab is pressed."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here: make shells installs it")
    assert main([f"--print_completion={shell}"]) == 0
    (place / "script").write_text(capsys.readouterr().out)
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "TERM": "dumb"}
    with subprocess.Popen(
        [program, "-f"], **streams, cwd=place, env=environment, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # without it tcsh edits no lines
    ) as process:  # fmt: skip
        try:
            os.write(ours, f"{ready}\n".encode())
            heard_until(ours, "ready> ")
            os.write(ours, b"fadrm-hf rank\t")
            heard_until(ours, "fadrm-hf rank-architectures ")
            os.write(ours, b"\x15fadrm-hf publish --spac\t")  # after the line is taken back
            heard_until(ours, "publish --space ")
        finally:
            process.kill()
            os.close(ours)
            os.close(theirs)


def heard_until(terminal: int, expected: str) -> None:
    """Read what a shell says until it has said this."""
    heard = ""
    while expected not in heard.replace("\x08", ""):
        assert select.select([terminal], [], [], 600)[0], f"not said: {expected!r}, but {heard!r}"
        heard += os.read(terminal, 4096).decode(errors="replace")


@pytest.mark.parametrize("shell", ["fish", ""])
def test_a_shell_that_is_not_known_is_refused(capsys, shell):
    assert main(["--print_completion", *([shell] if shell else [])]) == 2
    assert "bash, zsh, tcsh" in capsys.readouterr().err


def test_without_shtab_one_is_told_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print_completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err
