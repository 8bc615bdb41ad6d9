"""An evaluation sent back to the dataset it was measured on, as a pull request that leaves a sound repository.

Three files change: the evaluation is added to `results/`, the card's table lists it, the manifest knows both. No table
of the dataset is read.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitInfo, CommitOperationAdd, Discussion, HfApi

from fadrm_hf.artifact.location import Location
from fadrm_hf.artifact.manifest import FileRecord, Manifest, with_files
from fadrm_hf.errors import ArtifactError, HubError
from fadrm_hf.evaluation.results import result_name
from fadrm_hf.hub.repository import RepoName, open_artifact, parse_name, pinned_repository
from fadrm_hf.hub.retry import retry
from fadrm_hf.hub.session import require_login, talking_to_hub
from fadrm_hf.publishing.received_results import read_evaluation
from fadrm_hf.report.card.results import Result, read_results, replace_results
from fadrm_hf.runtime.files import write_bytes
from fadrm_hf.runtime.run_folder import CARD, IMAGES_FOLDER, LABELS_FOLDER, MANIFEST, RESULTS

_SAYS = {
    "opened": "a pull request is open at",
    "open": "this evaluation was sent before; its pull request waits at",
    "merged": "this evaluation is in the repository already:",
}


@dataclass(frozen=True)
class Contribution:
    """Where an evaluation that was sent is to be seen.

    Attributes:
        url: The pull request's page, or the file's once it is merged.
        state: "opened" just now, "open" since an earlier time, or "merged".
    """

    url: str
    state: Literal["opened", "open", "merged"]

    def __str__(self) -> str:
        return f"{_SAYS[self.state]} {self.url}"


def send_result(result_file: Path, repo_id: str, revision: str | None = None) -> Contribution:
    """Offer an evaluation to the dataset's repository as a pull request, once.

    Args:
        result_file: What `train-student` wrote.
        repo_id: `ORG/NAME`, perhaps with `@COMMIT`.
        revision: Commit that it was measured on; as the result says when not given.

    Raises:
        ConfigError: If the file is no complete evaluation.
        HubError: If nobody is logged in, the Hub refuses, or it was measured on another dataset than this.
        ArtifactError: If the repository is no artifact.
    """
    given = parse_name(repo_id)
    result = read_evaluation(result_file)
    api = require_login()
    measured_on = _measured_on(result, replace(given, revision=revision or given.revision), result_file)
    current = open_artifact(given.id)
    _require_same_data(result, measured_on, current)
    artifact = {"repository": given.id, "revision": _commit_of(measured_on)}
    result |= {"artifact": artifact, "contributed": True}
    content = (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode()
    path = f"{RESULTS}{result_name(result)}-{hashlib.sha256(content).hexdigest()[:8]}.json"
    if path in current.manifest.files:
        return Contribution(f"{api.endpoint}/datasets/{given.id}/blob/main/{path}", "merged")
    waiting = _find_pull(api, current, path, content)
    if waiting is not None:
        return Contribution(waiting, "open")
    return Contribution(_open_pull(api, current, path, content), "opened")


def _measured_on(result: Result, given: RepoName, result_file: Path) -> Location:
    """Return the dataset at the commit of an evaluation, as it says itself or as it is given."""
    recorded = result.get("artifact") or {"repository": given.id, "revision": given.revision}
    if recorded["revision"] is None:
        raise HubError(
            f"{result_file} does not say on which commit of {given.id} it was measured; give it with --revision"
        )
    if recorded["repository"].lower() != given.id.lower():
        raise HubError(
            f"{result_file} was measured on {recorded['repository']}, not on {given.id}; send it where it belongs"
        )
    location = open_artifact(given.id, given.revision or recorded["revision"])
    commit = _commit_of(location)
    if "artifact" in result and commit != recorded["revision"]:
        raise HubError(
            f"{result_file} was measured on {given.id}@{recorded['revision']}, not on {commit}; leave out --revision"
        )
    return location


def _commit_of(location: Location) -> str:
    name = pinned_repository(location)
    assert name is not None and name.revision is not None
    return name.revision


def _require_same_data(result: Result, measured_on: Location, current: Location) -> None:
    """Refuse an evaluation of other tables than those that are there now."""
    if _tables(measured_on.manifest) != _tables(current.manifest):
        raise HubError(
            f"the images or labels of {current.name} are others than those of {measured_on.name}, on which this was"
            " measured; measure again with fadrm-hf train-student on the current version"
        )
    expected = current.manifest.num_images
    if result["images"] == "distilled" and result["num_images"] != expected:
        raise HubError(f"the result counts {result['num_images']} images, {current.name} has {expected}")


def _tables(manifest: Manifest) -> dict[str, FileRecord]:
    folders = (f"{IMAGES_FOLDER}/", f"{LABELS_FOLDER}/")
    return {name: record for name, record in manifest.files.items() if name.startswith(folders)}


def _open_pull(api: HfApi, current: Location, path: str, content: bytes) -> str:
    """Open the pull request on the commit that `current` is; returns its page."""
    contents = _changed_files(current, path, content)
    repo_id = current.name.partition("@")[0]
    description = f"{path}, sent with fadrm_hf. The card's table and {MANIFEST} are brought up to date."

    def send() -> str:
        operations = [CommitOperationAdd(name, file) for name, file in contents.items()]
        done: CommitInfo = api.create_commit(
            repo_id, operations, commit_message=_title(path), commit_description=description, repo_type="dataset",
            create_pr=True, parent_commit=_commit_of(current),
        )  # fmt: skip
        assert done.pr_url is not None
        return done.pr_url

    return retry(f"sending a result to {repo_id}", send, lambda: _find_pull(api, current, path, content))


def _changed_files(current: Location, path: str, content: bytes) -> dict[str, bytes]:
    """Return the files of the pull request; merged, they are an artifact whose every hash is right."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in current.manifest.files:
            if name.startswith(RESULTS):
                write_bytes(Path(scratch, name), current.local(name).read_bytes())
        write_bytes(Path(scratch, path), content)
        results = read_results(Path(scratch))
    card = replace_results(current.local(CARD).read_text(encoding="utf-8"), results).encode()
    manifest = (current.folder / MANIFEST).read_text(encoding="utf-8")
    contents = {path: content, CARD: card}
    return contents | {MANIFEST: with_files(manifest, contents).encode()}


def _find_pull(api: HfApi, current: Location, path: str, content: bytes) -> str | None:
    """Return the page of an open pull request that adds this very file and can still be merged."""
    expected = current.manifest.files | {path: FileRecord(hashlib.sha256(content).hexdigest(), len(content))}
    del expected[CARD]  # whose table a pull request changes
    repo_id = current.name.partition("@")[0]
    for pull in _open_pulls(api, repo_id):
        if pull.title == _title(path) and expected.items() <= _files_of_pull(repo_id, pull).items():
            return pull.url
    return None


def _files_of_pull(repo_id: str, pull: Discussion) -> dict[str, FileRecord]:
    """Return the files of the artifact with a pull request merged; none if it would break it."""
    try:
        return open_artifact(repo_id, pull.git_reference).manifest.files
    except ArtifactError:
        return {}


def _open_pulls(api: HfApi, repo_id: str) -> Iterator[Discussion]:
    with talking_to_hub(f"looking for pull requests of {repo_id}"):
        yield from api.get_repo_discussions(
            repo_id, repo_type="dataset", discussion_type="pull_request", discussion_status="open"
        )


def _title(path: str) -> str:
    return f"Add {path}"
