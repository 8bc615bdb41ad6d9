"""Publishing an artifact: `publish`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import HfApi

from fadrm_hf.commands.call import Call
from fadrm_hf.commands.options.sharing import PublishOptions
from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.errors import ConfigError
from fadrm_hf.publishing.publish import Publication, Request, publish
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world

_ASKED = ("private", "public", "teachers", "labels", "num_steps", "dry_run", "space")


def publish_command(call: Call) -> Summary:
    """Run `fadrm-hf publish RUN ORG/NAME`."""
    options: PublishOptions = call.options
    _require_one_process()
    asked = {name: getattr(options, name) for name in _ASKED}
    done = publish(Request(Path(options.artifact), options.repository, options.revision, **asked), Reporter())
    say(f"{options.artifact} {_verb(done)} {done.repo_id}@{done.tag}")
    return _summary(options.artifact, done, call.words, options.space)


def _summary(artifact: str, done: Publication, words: Sequence[str], has_space: bool) -> Summary:
    """Return where the artifact is and how to use it; after a dry run, the command that publishes it."""
    if done.commit is None:
        wanted = [word for word in words if word != "--dry_run"]
        return Summary(result=asdict(done), following=["publish", *wanted])
    endpoint, name = HfApi().endpoint, f"{done.repo_id}@{done.tag}"
    pages = {"artifact": artifact, "page": f"{endpoint}/datasets/{done.repo_id}/tree/{done.tag}"}
    space = {"gallery": f"{endpoint}/spaces/{done.repo_id}"} if has_space else {}
    return Summary(pages | space, asdict(done), ["train-student", name])


def _verb(done: Publication) -> str:
    if done.commit is None:
        return "would be published as"
    return "was published before as" if done.was_there else "is published as"


def _require_one_process() -> None:
    started = join_world().num_processes
    if started > 1:
        raise ConfigError(f"one process publishes, {started} were launched; use the command without accelerate launch")
