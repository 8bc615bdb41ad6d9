"""Sharing of a student and its result by `train-student`: keep it, push it, send the result back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fadrm_hf import hub
from fadrm_hf.artifact.location import Location
from fadrm_hf.commands.output import say
from fadrm_hf.config import StudentConfig
from fadrm_hf.errors import ConfigError, HubError
from fadrm_hf.evaluation.results import ResultFolder
from fadrm_hf.hub.repository import pinned_repository
from fadrm_hf.publishing.contribute import send_result
from fadrm_hf.publishing.student_repository import check_model_name, check_savable, push_student, save_student
from fadrm_hf.report.card.results import Result


@dataclass(frozen=True)
class Sharing:
    """Places to share a student and its result with.

    Attributes:
        folder: Where the first student is kept.
        model: Model repository it is pushed to.
        private: Whether a new one is private.
        sends: Whether the result goes to the artifact's repository as a pull request.
    """

    folder: str | None
    model: str | None
    private: bool
    sends: bool

    def require_login(self) -> None:
        """Refuse a missing token or an invalid name before any data is read."""
        if self.model is not None:
            check_model_name(self.model)
        if self.model is not None or self.sends:
            hub.require_login()

    def check(self, location: Location, config: StudentConfig) -> None:
        """Refuse what cannot be shared before it is trained."""
        if self.sends and pinned_repository(location) is None:
            raise ConfigError(
                f"{location.name} is a folder: its results are sent nowhere. Train from ORG/NAME to use --send_result,"
                " or send a result later with fadrm-hf send-result"
            )
        if self.folder is not None or self.model is not None:
            check_savable(config.student, location.manifest.pixels.size)

    def share(self, student: nn.Module, result: Result, file: Path, place: ResultFolder) -> None:
        """Share what was requested; `file` is where the result is filed."""
        location = place.location
        if self.folder is not None or self.model is not None:
            folder = Path(self.folder) if self.folder is not None else place.work.student
            say(f"{save_student(student, folder, result=result, location=location)}")
            if self.model is not None:
                with _to_be_done_later(f"fadrm-hf push-student {folder} {self.model}"):
                    say(push_student(folder, self.model, private=self.private))
        name = pinned_repository(location)
        if self.sends and name is not None:
            with _to_be_done_later(f"fadrm-hf send-result {file} {name.id}"):
                say(f"{send_result(file, name.id, name.revision)}")


@contextmanager
def _to_be_done_later(command: str) -> Iterator[None]:
    """Report a failure of the Hub as work to be done later: what is trained and filed need not be trained again."""
    try:
        yield
    except HubError as error:
        raise HubError(
            f"{error}. The training is finished and kept; later, this command is enough: {command}"
        ) from error
