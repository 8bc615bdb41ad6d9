"""Giving back: `send-result`, an evaluation for a dataset's repository; `push-student`, a model repository."""

from dataclasses import asdict
from pathlib import Path

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.sharing import PushStudentOptions, SendResultOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.publishing.contribute import send_result
from fadrm_hf.publishing.student_repository import push_student


def send_result_command(call: Call) -> Summary:
    """Run `fadrm-hf send-result RESULT.json ORG/NAME`."""
    options: SendResultOptions = call.options
    sent = send_result(Path(options.result), options.repository, options.revision)
    say(str(sent))
    return Summary(paths={"result": options.result, "page": sent.url}, result=asdict(sent))


def push_student_command(call: Call) -> Summary:
    """Run `fadrm-hf push-student DIR ORG/MODEL`."""
    options: PushStudentOptions = call.options
    page = push_student(Path(options.folder), options.repository, private=options.private)
    say(page)
    return Summary(paths={"student": options.folder, "page": page})
