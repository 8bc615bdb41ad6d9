"""An artifact goes to the Hub: checked, completed by what others measured, sent in one commit, tagged.

images and labels together     ORG/NAME
labels apart                   ORG/NAME with the images, ORG/NAME-labels with `soft_labels/`
online                         ORG/NAME without labels; readers make them with the teachers
with a Space                   the gallery too, as the static Space ORG/NAME
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from huggingface_hub import DatasetCardData, SpaceCardData, hf_hub_download
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import Manifest, artifact_files, read_manifest
from fadrm_hf.errors import ArtifactError, ConfigError, HubError
from fadrm_hf.hub.publisher import Decision, Order, Publisher
from fadrm_hf.hub.remote import LocalFile, Remote
from fadrm_hf.hub.repository import parse_name
from fadrm_hf.hub.retry import PATIENT, Patience, retry
from fadrm_hf.hub.session import require_login, status_of, talking_to_hub
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.publishing.sent_teachers import SentWeights, leave_out_teachers, lines_about, teachers_in
from fadrm_hf.publishing.verify import verify_location
from fadrm_hf.report.card.metadata import card_metadata, card_title, label_configs, licence_fields, public_source
from fadrm_hf.report.card.results import read_results
from fadrm_hf.report.card.text import render
from fadrm_hf.report.gallery.sheets import RECORD
from fadrm_hf.report.gallery.writing import PAGE
from fadrm_hf.report.renewal import finish_change, renew
from fadrm_hf.runtime.files import write_bytes, write_json
from fadrm_hf.runtime.progress import QUIET, Reporter
from fadrm_hf.runtime.run_folder import (
    ANALYSIS,
    CARD,
    CHANGING,
    GALLERY,
    LABELS_FOLDER,
    MANIFEST,
    RESULTS,
    SCORES,
    TEACHERS,
    RunFolder,
)

Labels = Literal["with", "apart", "online"]

_RESULT = re.compile(rf"(?!(?:{SCORES}|{ANALYSIS})$){RESULTS}[\w][\w.+-]*\.json")  # those two are measured here
_MAX_RESULT_BYTES = 1 << 20
_TAG = re.compile(r"(?!main$|[0-9a-f]{7,40}$)[A-Za-z0-9][\w.-]{0,62}")  # no branch, and nothing like a commit
_LABELS = f"{LABELS_FOLDER}/"
_UNKNOWN_COMMIT = "0" * 40  # of labels that are not there yet


@dataclass(frozen=True)
class Publication:
    """The outcome of a request.

    Attributes:
        repo_id: `ORG/NAME`.
        tag: Its version.
        commit: The commit of that version; `None` after a dry run.
        was_there: Whether the Hub had this very version before.
    """

    repo_id: str
    tag: str
    commit: str | None
    was_there: bool


@dataclass(frozen=True)
class Request:
    """A publication that is asked for.

    Attributes:
        folder: The artifact. Its card is rewritten with the repository's name, and results that others contributed on
            the Hub are filed in it.
        repo_id: `ORG/NAME`; made if need be. If the source's terms ask for consent and the repository is not private,
            its readers are asked for it.
        tag: Version, such as "v1.0"; `None` for the next one, or the present one if nothing has changed.
        private: Whether only its owners see it.
        labels: "with" the images, "apart" in `repo_id-labels`, or "online": not at all.
        num_steps: Labelled batches that are made again to check the artifact.
        dry_run: Only say what would be sent.
        space: Whether the gallery becomes the static Space `repo_id` as well.
        teachers: "with" the weights that are in the artifact, their "hash" alone, or "none" of the teachers.
        public: Whether everybody may see weights whose licence is unknown; without it a new repository is private.
    """

    folder: Path
    repo_id: str
    tag: str | None = None
    private: bool = False
    labels: Labels = "with"
    num_steps: int = 4
    dry_run: bool = False
    space: bool = False
    teachers: SentWeights = "with"
    public: bool = False

    @property
    def label_repo_id(self) -> str:
        """The repository of labels that are kept apart."""
        return f"{self.repo_id}-labels"

    def staged(self, variant: str) -> Path:
        """Return an empty folder for a copy that differs from the run."""
        folder = RunFolder(self.folder.resolve()).work.staged(variant)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def publish(request: Request, reporter: Reporter = QUIET, patience: Patience = PATIENT) -> Publication:
    """Publish an artifact, or resume a publication that was interrupted.

    Everything becomes visible in one commit: readers see either all of a version or nothing of it.

    Args:
        request: What and how.
        reporter: Where progress goes.
        patience: How long to retry while the Hub has trouble.

    Raises:
        HubError: If nobody is logged in, the version exists with other files, the Hub refuses, or its trouble lasts.
        ArtifactError: If the artifact is damaged, or has no gallery to make a Space of.
        ConfigError: If the Space would show to everybody what readers of the dataset have to agree to terms for, or
            the requests contradict one another.
    """
    _check_names(request.repo_id, request.tag)
    _check_teachers(request)
    if request.space:
        _check_space(request.folder, request.private)
    publisher = Publisher(retry("logging in", require_login, patience=patience), reporter, patience)
    _require_sound(request.folder, request.num_steps, reporter)
    for attempt in range(1, patience.tries + 1):
        try:
            return _publish_once(publisher, request)
        except HubError as error:
            if attempt == patience.tries or error.__cause__ is None or status_of(error.__cause__) != 412:
                raise
            reporter.say(f"somebody committed to {request.repo_id} meanwhile; looking again")
    raise AssertionError("the last try returns or raises")


def _check_names(repo_id: str, tag: str | None) -> None:
    with talking_to_hub(f"publishing as {repo_id!r}"):
        if parse_name(repo_id).id != repo_id:
            raise HubError(f"{repo_id!r} names a revision, expected ORG/NAME; give a version with --revision")
        validate_repo_id(repo_id)
    if tag is not None and not _TAG.fullmatch(tag):
        raise HubError(f"{tag!r} cannot be a version, expected a tag like 'v1.0'; set --revision, or leave it out")


def _check_teachers(request: Request) -> None:
    if request.labels == "online" and request.teachers != "with":
        raise ConfigError(
            f"teachers is {request.teachers!r}, but readers of labels that are made online need their weights; set "
            "--teachers with, or --labels with or apart"
        )
    if request.private and request.public:
        raise ConfigError("private and public are both asked for; leave out one of them")


def _with_teachers_as_asked(publisher: Publisher, request: Request, remote: Remote) -> Request:
    """Return the request for what is sent: a copy without weights, or in private where their licence is unknown."""
    teachers = teachers_in(request.folder, read_manifest(request.folder))
    for line in lines_about(teachers, request.teachers):
        publisher.reporter.say(line)
    if request.teachers != "with":
        return replace(request, folder=_stage_without_teachers(request))
    unknown = [teacher.name for teacher in teachers if teacher.terms is None]
    if not unknown or request.private or request.public:
        return request
    if remote.commit is not None and not remote.is_private:
        raise ConfigError(
            f"the licence of the weights of {', '.join(unknown)} is unknown, and {remote.id} is public; nothing was "
            "sent: --teachers hash leaves them out, --public sends them all the same"
        )
    publisher.reporter.say(
        "  private, as a licence is unknown; --public shows the weights, --teachers hash sends none"
    )
    return replace(request, private=True)


def _stage_without_teachers(request: Request) -> Path:
    """Return a copy of the run without the weights of its teachers."""
    folder = _linked(request, f"teachers-{request.teachers}", left_out=TEACHERS)
    leave_out_teachers(folder, request.teachers)
    return folder


def _check_space(folder: Path, private: bool) -> None:
    source = read_manifest(folder).source
    if not (RunFolder(folder).gallery / RECORD).is_file():
        raise ArtifactError(f"{folder} has no gallery to make a Space of; make it with fadrm-hf gallery {folder}")
    if source.gated and not private:
        raise ConfigError(
            f"space is asked for, but readers have to agree to the terms of {public_source(source.name)}, which no "
            "Space can ask of them; add --private, or leave out --space"
        )


def _require_sound(folder: Path, num_steps: int, reporter: Reporter) -> None:
    if (folder / CHANGING).exists():  # a change was interrupted, perhaps of this very publication
        finish_change(folder, reporter.say)
    location = LocalFolder(folder)
    if location.manifest.label_repository is not None:
        raise ArtifactError(
            f"the labels of {folder} are in {location.manifest.label_repository}; publish the run that has both"
        )
    problems = verify_location(location, num_steps, reporter)
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ArtifactError(
            f"{folder} is damaged, so nothing was sent: {'; '.join(map(str, problems[:3]))}{more}; mend what "
            f"`fadrm-hf verify {folder}` names, or make the artifact again"
        )


def _publish_once(publisher: Publisher, request: Request) -> Publication:
    """Look at the Hub once, and do what follows from it."""
    remote = publisher.look(request.repo_id)
    request = _with_teachers_as_asked(publisher, request, remote)
    if request.labels == "apart":
        return _publish_apart(publisher, request, remote)
    folder = request.folder
    if request.labels == "online":
        folder = request.staged("online")
        recode(request.folder, folder, codec="none")
    _take_over_results(publisher, remote, folder)
    return _carry_out_all(
        publisher, request, _decide(publisher, request, remote, _written_for(folder, request.repo_id))
    )


def _publish_apart(publisher: Publisher, request: Request, remote: Remote) -> Publication:
    """Publish the labels; then the images, whose manifest and card name the labels' commit."""
    _take_over_results(publisher, remote, request.folder)
    labels = publisher.decide(_label_order(request))
    images = _decide(publisher, request, remote, _stage_apart(request, labels.commit or _UNKNOWN_COMMIT))
    sent = _carry_out(publisher, request, labels)
    if sent.commit != labels.commit and sent.commit is not None:
        images = _decide(publisher, request, remote, _stage_apart(request, sent.commit))
    return _carry_out_all(publisher, request, images)


def _decide(publisher: Publisher, request: Request, remote: Remote, files: Mapping[str, LocalFile]) -> Decision:
    order = Order(request.repo_id, files, "dataset", (MANIFEST,), request.tag, request.private, _terms(request.folder))
    return publisher.decide(order, remote)


def _label_order(request: Request) -> Order:
    """Return the repository of the labels: their tables and a small card. Its versions are counted by themselves."""
    files = {name: file for name, file in _files(request.folder).items() if name.startswith(_LABELS)}
    card = LocalFile.of(_label_card(read_manifest(request.folder), request).encode())
    terms = _terms(request.folder)
    return Order(request.label_repo_id, files | {CARD: card}, marks=(_LABELS,), private=request.private, terms=terms)


def _space_order(request: Request, published: Decision) -> Order:
    """Return the Space: the gallery that is published with the dataset, and a card; private if the dataset is."""
    files = published.order.files.items()
    gallery = {name.removeprefix(GALLERY): file for name, file in files if name.startswith(GALLERY)}
    card = LocalFile.of(_space_card(read_manifest(request.folder), request).encode())
    is_private = request.private or published.remote.is_private
    return Order(request.repo_id, gallery | {CARD: card}, "space", (RECORD,), private=is_private)


def _carry_out_all(publisher: Publisher, request: Request, decision: Decision) -> Publication:
    """Publish the dataset; then its Space, if one is asked for."""
    done = _carry_out(publisher, request, decision)
    if request.space:
        _carry_out(publisher, request, publisher.decide(_space_order(request, decision)))
    return done


def _carry_out(publisher: Publisher, request: Request, decision: Decision) -> Publication:
    for line in decision.lines():
        publisher.reporter.say(line)
    commit = None if request.dry_run else publisher.publish(decision)
    return Publication(decision.order.repo_id, decision.tag, commit, decision.is_done)


def _take_over_results(publisher: Publisher, remote: Remote, folder: Path) -> None:
    """File what others measured with the artifact; nothing is overwritten."""
    names = [name for name in sorted(remote.files) if _RESULT.fullmatch(name) and not (folder / name).exists()]
    if not names:
        return
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            content = _fetch_result(publisher, remote, name)
            write_bytes(Path(place) / name, content)
        try:
            read_results(Path(place))
        except ArtifactError as error:
            raise HubError(
                f"{remote.id} holds a result that is none ({error}); remove it there, then publish again"
            ) from error
        for name in names:
            write_bytes(folder / name, (Path(place) / name).read_bytes())
            publisher.reporter.say(f"taken over from {remote.id}: {name}")
    _written_for(folder, None)


def _fetch_result(publisher: Publisher, remote: Remote, name: str) -> bytes:
    if remote.files[name].bytes > _MAX_RESULT_BYTES:
        raise HubError(
            f"{remote.id}/{name} has {remote.files[name].bytes:,} bytes, expected at most {_MAX_RESULT_BYTES:,}; "
            "remove it there, then publish again"
        )
    fetch = partial(hf_hub_download, remote.id, name, repo_type="dataset", revision=remote.commit)
    return Path(retry(f"reading {remote.id}/{name}", fetch, patience=publisher.patience)).read_bytes()


def _stage_apart(request: Request, label_commit: str) -> dict[str, LocalFile]:
    """Return the files of a copy of the run without labels, whose manifest says where they are."""
    folder = _linked(request, "apart")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    write_json(folder / MANIFEST, manifest | {"label_repository": f"{request.label_repo_id}@{label_commit}"})
    files = _written_for(folder, request.repo_id)
    return {name: file for name, file in files.items() if not name.startswith(_LABELS)}


def _linked(request: Request, variant: str, left_out: str | None = None) -> Path:
    """Return a copy of the run that takes no room, without the files whose names begin with `left_out`."""
    folder = request.staged(variant)
    for name in [*artifact_files(request.folder), MANIFEST]:
        if left_out is None or not name.startswith(left_out):
            _link(request.folder / name, folder / name)
    return folder


def _link(file: Path, copy: Path) -> None:
    """Give a file a second name, or copy it where the disk has no links; files are replaced, never changed."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, copy)
    except OSError:
        shutil.copyfile(file, copy)


def _written_for(folder: Path, repo_id: str | None) -> dict[str, LocalFile]:
    """Write the card for a repository, or for the one that it names already; return the artifact's files."""
    renew(folder, Reporter().say, repo_id)
    return _files(folder)


def _files(folder: Path) -> dict[str, LocalFile]:
    records = read_manifest(folder).files.items()
    files = {name: LocalFile(folder / name, record.sha256, record.bytes) for name, record in records}
    return files | {MANIFEST: LocalFile.of(folder / MANIFEST)}


def _terms(folder: Path) -> str | None:
    source = read_manifest(folder).source
    return public_source(source.name) if source.gated else None


def _space_card(manifest: Manifest, request: Request) -> str:
    title = card_title(manifest)
    metadata = SpaceCardData(
        title=title,
        sdk="static",
        app_file=PAGE,
        colorFrom="blue",
        colorTo="gray",
        pinned=False,
        license=licence_fields(manifest.source)["license"],
        datasets=[request.repo_id],
        tags=["dataset-distillation", "fadrm_hf"],
    )
    return render("space_card.md", metadata=metadata.to_yaml(), title=title, name=request.repo_id)


def _label_card(manifest: Manifest, request: Request) -> str:
    first, *others = label_configs()
    configs = [first | {"default": True}, *others]
    fields = {"pretty_name": f"{card_title(manifest)}: soft labels", "configs": configs}
    metadata = DatasetCardData(**(card_metadata(manifest).to_dict() | fields))
    return render(
        "label_card.md",
        metadata=metadata.to_yaml(),
        title=card_title(manifest),
        name=request.repo_id,
        label_name=request.label_repo_id,
        num_images=manifest.num_images,
        label_epochs=manifest.label_epochs,
        label_codec=manifest.label_codec,
    )
