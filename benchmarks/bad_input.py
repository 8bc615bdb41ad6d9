"""Every kind of bad input, typed at the real command line: seconds until it is named.

The kinds are those of the tests (`tests/fixtures/bad_input.py`). Each is typed in a process of its own and must be
named as the tests ask, with every file left as it was; the Hub is that of the tests too, so that no network is timed.
Seconds are those of the whole process. When all were typed, which takes minutes, `results/bad-input.json` is written.

    .venv/bin/python benchmarks/bad_input.py
    .venv/bin/python benchmarks/bad_input.py "unknown source" "truncated parquet"
"""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fadrm_hf.runtime.files import write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import conftest  # starts the Hub of the tests, and names it in the environment
from fixtures.bad_input import KINDS, Kind, check, state
from fixtures.runs import ROOT

PROGRAM = str(Path(sys.executable).with_name("fadrm-hf"))


def refusal(kind: Kind, place: Path) -> dict[str, Any]:
    """Type one kind of bad input in a folder of its own; return seconds, exit code and last line."""
    kind.make(place)
    before, environment = state(place), os.environ | kind.environment
    started = time.perf_counter()
    command = [PROGRAM, *shlex.split(kind.typed)]
    ended = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    seconds = round(time.perf_counter() - started, 2)
    check(kind, ended.returncode, ended.stdout, ended.stderr)
    assert state(place) == before
    last = (ended.stdout + ended.stderr).strip().splitlines()[-1].replace(str(ROOT), "").replace(str(place), "")
    return {"typed": kind.typed, "seconds": seconds, "code": ended.returncode, "last_line": last[:200]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="KIND", help="only these kinds, and nothing is written")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(KINDS)):
        parser.error(f"no such kinds: {', '.join(unknown)}")
    found = {}
    for name in names or KINDS:
        with tempfile.TemporaryDirectory() as place:
            found[name] = refusal(KINDS[name], Path(place))
        print(f"{found[name]['seconds']:6.2f} s  {name}", flush=True)
    seconds = [kind["seconds"] for kind in found.values()]
    summary = {
        "kinds": len(found),
        "seconds": {"median": round(statistics.median(seconds), 2), "largest": max(seconds)},
    }
    print(summary)
    if not names:
        machine = {"machine": describe_machine(), "versions": library_versions()}
        write_json(ROOT / "results/bad-input.json", summary | machine | {"each": found})


if __name__ == "__main__":
    try:
        main()
    finally:
        conftest.pytest_unconfigure()
