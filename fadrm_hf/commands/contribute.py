"""Giving back: `send-result`, an evaluation for a dataset's repository; `push-student`, a model repository."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.pipeline.arguments import new_parser, parse
from fadrm_hf.publishing.contribute import send_result
from fadrm_hf.publishing.student_repository import push_student


def send_result_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf send-result RESULT.json ORG/NAME`."""
    parser = new_parser(
        "fadrm-hf send-result", "Offer an evaluation to the dataset it was measured on, as a pull request."
    )
    parser.add_argument("result", type=str, help="JSON file that train-student wrote.")
    parser.add_argument("repository", type=str, help="Dataset repository, ORG/NAME.")
    parser.add_argument(
        "--revision", type=str, default=None, help="Commit or tag it was measured on, if the result does not say."
    )
    parsed = parse(parser, arguments)
    sent = send_result(Path(parsed.result), parsed.repository, parsed.revision)
    say(str(sent))
    return Summary(paths={"result": parsed.result, "page": sent.url}, result=asdict(sent))


def push_student_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf push-student DIR ORG/MODEL`."""
    parser = new_parser("fadrm-hf push-student", "Make a saved student a model repository on the Hub.")
    parser.add_argument("folder", type=str, help="What train-student --save_student wrote.")
    parser.add_argument("repository", type=str, help="Model repository, ORG/MODEL; made if need be.")
    parser.add_argument("--private", action="store_true", help="Make a new model repository private.")
    parsed = parse(parser, arguments)
    page = push_student(Path(parsed.folder), parsed.repository, private=parsed.private)
    say(page)
    return Summary(paths={"student": parsed.folder, "page": page})
