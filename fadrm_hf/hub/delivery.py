"""Files become a repository in one commit, which makes everything visible at once, and a tag that never moves.

Large files are sent ahead and belong to no commit until then, so that an interrupted publication is invisible, and the
next one sends only what is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from fadrm_hf.errors import HubError
from fadrm_hf.hub.commit import Patience, insist
from fadrm_hf.hub.remote import Kind, LocalFile, Plan, Remote, compare, files_at, look, next_version
from fadrm_hf.report.card.text import size
from fadrm_hf.runtime.progress import Reporter

_BATCH_BYTES = 256 << 20  # files that are sent, and counted, together; a larger one goes alone
_SHOWN = 5


@dataclass(frozen=True)
class Order:
    """What a repository shall hold.

    Attributes:
        repo_id: `ORG/NAME`.
        files: All of its files.
        tag: Its version; `None` for the next that is free.
        private: Whether only its owners may see it.
        terms: The source whose terms readers have to agree to, if there is one.
        marks: The repository is one of ours if it has one of these files, or nothing but a README.md.
        kind: What it is; a Space is one of static files.
    """

    repo_id: str
    files: Mapping[str, LocalFile]
    tag: str | None
    private: bool
    terms: str | None
    marks: tuple[str, ...]
    kind: Kind = "dataset"

    @property
    def title(self) -> str:
        """What it is called where a Space and a dataset may share a name."""
        return self.repo_id if self.kind == "dataset" else f"Space {self.repo_id}"


@dataclass(frozen=True)
class Decision:
    """What will be done to fulfil an order.

    Attributes:
        order: The order.
        remote: The repository as it is.
        plan: How it has to change.
        tag: The version it will have.
        commit: The commit that holds the files already, if there is one.
        is_done: Whether that commit has the tag already.
    """

    order: Order
    remote: Remote
    plan: Plan
    tag: str
    commit: str | None
    is_done: bool

    def lines(self) -> Iterator[str]:
        """What will be sent, for people."""
        order, remote = self.order, self.remote
        is_private = remote.is_private or order.private
        state = "private" if is_private else "gated" if order.terms else "public"
        yield f"{order.title} ({'new, ' if remote.commit is None else ''}{state})"
        plan = self.plan
        for name, files in (("new", plan.new), ("changed", plan.changed), ("unchanged", plan.unchanged)):
            yield f"  {name:<10} {_count(files)}, {size(sum(files.values()))}"
        shown = [*sorted(plan.deleted)[:_SHOWN], *(["..."] if len(plan.deleted) > _SHOWN else [])]
        yield f"  {'to delete':<10} {_count(plan.deleted)}{': ' if shown else ''}{', '.join(shown)}"
        yield f"  {'version':<10} {self.tag}{' (already there)' if self.is_done else ''}"
        if order.terms and not is_private:
            yield f"  readers are asked to agree to the terms of {order.terms}"


def decide(api: HfApi, order: Order, remote: Remote, patience: Patience) -> Decision:
    """Compare an order with what is there; nothing is changed.

    Raises:
        HubError: If the repository holds something else, cannot be what is asked for, or the tag is taken.
    """
    _refuse_foreign(order, remote)
    if order.private and remote.commit is not None and not remote.is_private:
        raise HubError(
            f"{order.title} is public already; make it private in its settings on the Hub, or leave out --private"
        )
    plan = compare(remote.files, order.files)
    head = remote.commit if plan.is_empty else None
    if order.tag is None:
        tags = [tag for tag, commit in remote.tags.items() if commit == head]
        return Decision(order, remote, plan, max(tags, default=next_version(remote.tags)), head, bool(tags))
    tagged = remote.tags.get(order.tag)
    if tagged is None:
        return Decision(order, remote, plan, order.tag, head, is_done=False)
    if (
        tagged != head
        and not compare(files_at(api, order.repo_id, tagged, patience, order.kind), order.files).is_empty
    ):
        raise HubError(
            f"{order.title} has a version {order.tag} with other files, and versions never change; the next one is "
            f"{next_version(remote.tags)}: set --revision to it, or leave it out"
        )
    return Decision(order, remote, plan, order.tag, tagged, is_done=True)


def deliver(api: HfApi, decision: Decision, reporter: Reporter, patience: Patience) -> str:
    """Do what was decided; returns the commit that holds the files.

    Raises:
        HubError: If the Hub refuses, or its trouble lasts. Until the one commit is made, readers see what was there
            before. Status 412 is its cause if somebody else committed meanwhile.
    """
    order = decision.order
    remote = _prepare(api, decision, reporter, patience)
    commit = decision.commit or _commit(api, order, remote, decision.tag, reporter, patience)
    if not decision.is_done:
        _tag(api, order, decision.tag, commit, patience)
    return commit


def _count(files: Mapping[str, int]) -> str:
    return f"{len(files):>4} {'file' if len(files) == 1 else 'files'}"


def _refuse_foreign(order: Order, remote: Remote) -> None:
    names = set(remote.files) - {"README.md"}
    if names and not any(name.startswith(order.marks) for name in names):
        expected = "artifact" if order.kind == "dataset" else "gallery"
        raise HubError(
            f"{order.title} is no {expected} (it holds {', '.join(sorted(names)[:3])}), and would lose all its files; "
            "choose another name"
        )


def _prepare(api: HfApi, decision: Decision, reporter: Reporter, patience: Patience) -> Remote:
    """Make the repository, and gate it if it must be, before there is anything to read in it."""
    order, remote, repo_id = decision.order, decision.remote, decision.order.repo_id
    if remote.commit is None:
        sdk = "static" if order.kind == "space" else None
        create = partial(api.create_repo, repo_id, repo_type=order.kind, private=order.private or None, space_sdk=sdk)
        insist(f"creating {repo_id}", lambda: bool(create()), lambda: _exists(api, order), patience)
    must_gate = order.terms is not None and not (order.private or remote.is_private or remote.is_gated)
    if must_gate:
        reporter.say(f"{repo_id}: readers will have to agree to the terms of {order.terms}")
        gate = partial(api.update_repo_settings, repo_id, repo_type="dataset", gated="auto")
        insist(f"gating {repo_id}", gate, patience=patience)
    if remote.commit is None or must_gate:
        remote = look(api, repo_id, patience, order.kind)
    if (order.terms and not (remote.is_private or remote.is_gated)) or (order.private and not remote.is_private):
        raise HubError(
            f"{repo_id} is open to everybody, which it must not be; nothing was sent: gate it or make it private in "
            "its settings on the Hub, then run the same command again"
        )
    return remote


def _exists(api: HfApi, order: Order) -> bool | None:
    return bool(api.repo_info(order.repo_id, repo_type=order.kind)) or None


def _commit(api: HfApi, order: Order, remote: Remote, tag: str, reporter: Reporter, patience: Patience) -> str:
    plan, repo_id = compare(remote.files, order.files), order.repo_id
    additions = _upload(api, order, plan.sent, reporter, patience)
    deletions = [CommitOperationDelete(name, is_folder=False) for name in plan.deleted]

    def send() -> str:
        done = api.create_commit(
            repo_id,
            [*additions, *deletions],
            commit_message=f"{tag}, published with fadrm_hf",
            repo_type=order.kind,
            parent_commit=remote.commit,
        )
        return done.oid

    def landed() -> str | None:
        info = look(api, repo_id, Patience(tries=1), order.kind)  # it is asked again with every try
        return info.commit if compare(info.files, order.files).is_empty else None

    return insist(f"committing to {repo_id}", send, landed, patience)


def _upload(
    api: HfApi, order: Order, names: Sequence[str], reporter: Reporter, patience: Patience
) -> list[CommitOperationAdd]:
    """Send the contents of large files; small ones travel with the commit."""
    additions = []
    with reporter.stage("upload", len(names)) as bar, _client_without_bars():
        for batch in _batches(names, order.files):
            operations = [CommitOperationAdd(name, order.files[name].path) for name in batch]
            send = partial(api.preupload_lfs_files, order.repo_id, operations, repo_type=order.kind)
            insist(f"sending {', '.join(batch[:_SHOWN])} to {order.repo_id}", send, patience=patience)
            additions += operations
            bar.advance(len(batch), MB=sum(order.files[name].bytes for name in batch) / 1e6)
    return additions


def _batches(names: Sequence[str], files: Mapping[str, LocalFile]) -> Iterator[list[str]]:
    batch: list[str] = []
    for name in names:
        if batch and sum(files[other].bytes for other in [*batch, name]) > _BATCH_BYTES:
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch


@contextmanager
def _client_without_bars() -> Iterator[None]:
    """Two live displays would overwrite each other."""
    shows_bars = not are_progress_bars_disabled()
    if shows_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        if shows_bars:
            enable_progress_bars()


def _tag(api: HfApi, order: Order, tag: str, commit: str, patience: Patience) -> None:
    repo_id = order.repo_id

    def send() -> bool:
        api.create_tag(repo_id, tag=tag, revision=commit, repo_type=order.kind)
        return True

    def landed() -> bool | None:
        refs = api.list_repo_refs(repo_id, repo_type=order.kind)
        return any((ref.name, ref.target_commit) == (tag, commit) for ref in refs.tags) or None

    insist(f"tagging {repo_id} as {tag}", send, landed, patience)
