"""Files become a repository in one commit, which makes everything visible at once, and a tag that never moves.

Datasets, models and Spaces are published alike. Large files are sent ahead and belong to no commit until then, so that
an interrupted publication is invisible, and the next one sends only what is missing.
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
from fadrm_hf.hub.remote import Kind, LocalFile, Plan, Remote, RemoteFile, compare, files_at, look, next_version
from fadrm_hf.hub.retry import PATIENT, Patience, retry
from fadrm_hf.hub.session import NOT_THE_HUB
from fadrm_hf.report.card.text import size
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import CARD

_BATCH_BYTES = 256 << 20  # files that are sent, and counted, together; a larger one goes alone
_SHOWN = 5
_HELD: dict[Kind, str] = {"dataset": "artifact", "model": "student", "space": "gallery"}


@dataclass(frozen=True)
class Order:
    """The contents that a repository shall have.

    Attributes:
        repo_id: `ORG/NAME`.
        files: All of its files.
        kind: What it is; a Space is one of static files.
        marks: The repository is one of ours if it has one of these files, or nothing but a card. Without marks it is
            if it has no other files than these.
        tag: Its version; `None` for the next that is free.
        private: Whether only its owners may see it.
        terms: The source whose terms readers have to agree to, if there is one.
    """

    repo_id: str
    files: Mapping[str, LocalFile]
    kind: Kind = "dataset"
    marks: tuple[str, ...] = ()
    tag: str | None = None
    private: bool = False
    terms: str | None = None

    @property
    def title(self) -> str:
        """The name in messages, where a Space and a dataset may share one."""
        return f"Space {self.repo_id}" if self.kind == "space" else self.repo_id

    def require_ours(self, names: set[str]) -> None:
        """Refuse a repository with files of somebody else, which it would lose.

        Args:
            names: Its files but for the card.
        """
        is_ours = any(name.startswith(self.marks) for name in names) if self.marks else names <= self.files.keys()
        if names and not is_ours:
            foreign = sorted(names if self.marks else names - self.files.keys())
            raise HubError(
                f"{self.title} is no {_HELD[self.kind]} (it holds {', '.join(foreign[:3])}), and would lose all its "
                "files; choose another name"
            )


@dataclass(frozen=True)
class Decision:
    """The steps that fulfil an order.

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
        """Yield what will be sent, for people."""
        order, remote, plan = self.order, self.remote, self.plan
        is_private = remote.is_private or order.private
        state = "private" if is_private else "gated" if order.terms else "public"
        yield f"{order.title} ({'new, ' if remote.commit is None else ''}{state})"
        for name, files in (("new", plan.new), ("changed", plan.changed), ("unchanged", plan.unchanged)):
            yield f"  {name:<10} {_count(files)}, {size(sum(files.values()))}"
        shown = [*sorted(plan.deleted)[:_SHOWN], *(["..."] if len(plan.deleted) > _SHOWN else [])]
        yield f"  {'to delete':<10} {_count(plan.deleted)}{': ' if shown else ''}{', '.join(shown)}"
        yield f"  {'version':<10} {self.tag}{' (already there)' if self.is_done else ''}"
        if order.terms and not is_private:
            yield f"  readers are asked to agree to the terms of {order.terms}"


@dataclass(frozen=True)
class Publisher:
    """Publishes on the Hub, however its connection behaves.

    Attributes:
        api: The Hub's client.
        reporter: Where progress goes.
        patience: How long requests are retried while the Hub has trouble.
    """

    api: HfApi
    reporter: Reporter = QUIET
    patience: Patience = PATIENT

    def look(self, repo_id: str, kind: Kind = "dataset") -> Remote:
        """Return a repository as it is now."""
        return look(self.api, repo_id, self.patience, kind)

    def decide(self, order: Order, remote: Remote | None = None) -> Decision:
        """Compare an order with what is there; nothing is changed.

        Args:
            order: What the repository shall hold.
            remote: The repository, if it was looked at already.

        Raises:
            HubError: If the repository holds something else, cannot be what is asked for, or the tag is taken.
        """
        remote = remote or self.look(order.repo_id, order.kind)
        order.require_ours(set(remote.files) - {CARD})
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
        if tagged != head and not compare(self._files_at(order, tagged), order.files).is_empty:
            raise HubError(
                f"{order.title} has a version {order.tag} with other files, and versions never change; the next one "
                f"is {next_version(remote.tags)}: set --revision to it, or leave it out"
            )
        return Decision(order, remote, plan, order.tag, tagged, is_done=True)

    def publish(self, decision: Decision) -> str:
        """Do what was decided; returns the commit that holds the files.

        Raises:
            HubError: If the Hub refuses, or its trouble lasts. Until the one commit is made, readers see what was
                there before. Status 412 is its cause if somebody else committed meanwhile.
        """
        remote = self._prepare(decision)
        commit = decision.commit or self._commit(decision.order, remote, decision.tag)
        if not decision.is_done:
            self._tag(decision.order, decision.tag, commit)
        return commit

    def _files_at(self, order: Order, revision: str) -> Mapping[str, RemoteFile]:
        return files_at(self.api, order.repo_id, revision, self.patience, order.kind)

    def _prepare(self, decision: Decision) -> Remote:
        """Create the repository, and gate it if it must be, before there is anything to read in it."""
        order, remote, repo_id = decision.order, decision.remote, decision.order.repo_id
        if remote.commit is None:
            sdk = "static" if order.kind == "space" else None
            create = partial(self.api.create_repo, repo_id, repo_type=order.kind, private=order.private or None)
            info = partial(self.api.repo_info, repo_id, repo_type=order.kind)
            retry(f"creating {repo_id}", lambda: bool(create(space_sdk=sdk)), lambda: bool(info()), self.patience)
        must_gate = order.terms is not None and not (order.private or remote.is_private or remote.is_gated)
        if must_gate:
            self.reporter.say(f"{repo_id}: readers will have to agree to the terms of {order.terms}")
            gate = partial(self.api.update_repo_settings, repo_id, repo_type=order.kind, gated="auto")
            retry(f"gating {repo_id}", gate, patience=self.patience)
        if remote.commit is None or must_gate:
            remote = self.look(repo_id, order.kind)
        if (order.terms and not (remote.is_private or remote.is_gated)) or (order.private and not remote.is_private):
            raise HubError(
                f"{repo_id} is open to everybody, which it must not be; nothing was sent: gate it or make it private "
                "in its settings on the Hub, then run the same command again"
            )
        return remote

    def _commit(self, order: Order, remote: Remote, tag: str) -> str:
        plan, repo_id = compare(remote.files, order.files), order.repo_id
        additions = self._upload(order, plan.sent)
        deletions = [CommitOperationDelete(name, is_folder=False) for name in plan.deleted]

        def send() -> str:
            done = self.api.create_commit(
                repo_id,
                [*additions, *deletions],
                commit_message=f"{tag}, published with fadrm_hf",
                repo_type=order.kind,
                parent_commit=remote.commit,
            )
            return done.oid

        def landed() -> str | None:
            now = look(self.api, repo_id, Patience(tries=1), order.kind)  # it is asked again with every try
            return now.commit if compare(now.files, order.files).is_empty else None

        return retry(f"committing to {repo_id}", send, landed, self.patience)

    def _upload(self, order: Order, names: Sequence[str]) -> list[CommitOperationAdd]:
        """Send the contents of large files; small ones travel with the commit."""
        additions = []
        with self.reporter.stage("upload", len(names)) as bar, _client_without_bars():
            for batch in _batches(names, order.files):
                operations = [CommitOperationAdd(name, order.files[name].content) for name in batch]
                send = partial(self.api.preupload_lfs_files, order.repo_id, operations, repo_type=order.kind)
                retry(f"sending {', '.join(batch[:_SHOWN])} to {order.repo_id}", send, patience=self.patience)
                additions += operations
                bar.advance(len(batch), MB=sum(order.files[name].bytes for name in batch) / 1e6)
        return additions

    def _tag(self, order: Order, tag: str, commit: str) -> None:
        repo_id = order.repo_id

        what = f"tagging {repo_id} as {tag}"

        def send() -> bool:
            self.api.create_tag(repo_id, tag=tag, revision=commit, repo_type=order.kind)
            if not landed():  # the client does not look at the answer
                raise HubError(f"{what}: {NOT_THE_HUB}")
            return True

        def landed() -> bool | None:
            refs = self.api.list_repo_refs(repo_id, repo_type=order.kind)
            return any((ref.name, ref.target_commit) == (tag, commit) for ref in refs.tags) or None

        retry(what, send, landed, self.patience)


def _count(files: Mapping[str, int]) -> str:
    return f"{len(files):>4} {'file' if len(files) == 1 else 'files'}"


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
    """Hide the client's bars: two live displays would overwrite each other."""
    shows_bars = not are_progress_bars_disabled()
    if shows_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        if shows_bars:
            enable_progress_bars()
