"""Publishing an artifact: `publish`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import HfApi

from fadrm_hf.commands.output import say
from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import require
from fadrm_hf.errors import ConfigError
from fadrm_hf.pipeline.arguments import new_parser, parse
from fadrm_hf.publishing.publish import Labels, Publication, Request, publish
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.shards import join_world


def publish_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf publish RUN ORG/NAME`."""
    parser = new_parser("fadrm-hf publish", "Check an artifact and publish it as a dataset on the Hub.")
    parser.add_argument("artifact", type=str, help="Run folder.")
    parser.add_argument("repository", type=str, help="ORG/NAME; made if need be.")
    parser.add_argument("--private", action="store_true", help="Only its owners see it.")
    parser.add_argument("--revision", type=str, default=None, help="Version, e.g. v1.0; the next one if not given.")
    parser.add_argument(
        "--labels", type=Labels, default="with", help="With the images, apart in ORG/NAME-labels, or online: none."
    )
    parser.add_argument("--dry_run", action="store_true", help="Only say what would be sent.")
    parser.add_argument("--space", action="store_true", help="Show its gallery as the static Space ORG/NAME, too.")
    parser.add_argument("--num_steps", type=int, default=4, help="Labelled batches that are made again as a check.")
    parsed = parse(parser, arguments)
    require(parsed.num_steps >= 0, "num_steps", parsed.num_steps, "0 or more")
    _require_one_process()
    options = {name: parsed[name] for name in ("private", "labels", "num_steps", "dry_run", "space")}
    done = publish(Request(Path(parsed.artifact), parsed.repository, parsed.revision, **options), Reporter())
    say(f"{parsed.artifact} {_verb(done)} {done.repo_id}@{done.tag}")
    return _summary(parsed.artifact, done, arguments, parsed.space)


def _summary(artifact: str, done: Publication, arguments: Sequence[str], has_space: bool) -> Summary:
    """Where it is, and what uses it; after a dry run, what publishes it."""
    if done.commit is None:
        wanted = [word for word in arguments if word != "--dry_run"]
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
