"""Processes whose launcher is gone."""

import os
import subprocess
import sys

import pytest

WORKER = """
import signal, sys, time
from fadrm_hf.runtime.launcher import end_with_launcher

def ended(*_):
    print("ended", flush=True)
    sys.exit()

signal.signal(signal.SIGTERM, ended)
end_with_launcher(look_every=0.01)
print("works", flush=True)
time.sleep({seconds})
print("finished", flush=True)
"""
LAUNCHER = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("variables", "seconds", "said"),
    [
        ({"TORCHELASTIC_RUN_ID": "none"}, 600, "ended"),
        ({"ACCELERATE_DYNAMO_BACKEND": "NO"}, 600, "ended"),
        ({}, 0.3, "finished"),
    ],
    ids=["torchrun", "accelerate launch", "nobody"],
)
def test_a_process_ends_with_its_launcher_and_only_with_that(variables, seconds, said):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "ACCEL"))}
    worker = WORKER.replace("{seconds}", str(seconds))
    command, pipes = [sys.executable, "-c", LAUNCHER, worker], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment | variables, text=True, **pipes) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "works\n"
        launcher.kill()
        assert launcher.stdout.read() == f"{said}\n"  # to the end of the pipe, which the worker holds open
