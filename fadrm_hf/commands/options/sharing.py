"""Options of the commands that share an artifact, a student or a result."""

from dataclasses import dataclass
from typing import Literal

from fadrm_hf.commands.options.base import Options
from fadrm_hf.config import require


@dataclass(frozen=True)
class PublishOptions(Options):
    """Check an artifact and publish it as a dataset on the Hub.

    Args:
        artifact: Run folder.
        repository: ORG/NAME; created if need be.
        private: Let only its owners see it, as by default where the licence of a teacher's weights is unknown.
        public: Show weights of an unknown licence to everybody.
        teachers: Weights of teachers that no reader could fetch by name, their hash alone, or none of the teachers.
        revision: Version, e.g. v1.0; the next one if not given.
        labels: Soft labels with the images, apart in ORG/NAME-labels, or online, which publishes none.
        dry_run: Only print what would be sent.
        space: Show the gallery as the static Space ORG/NAME, too.
        num_steps: Labelled batches to replay as a check.
    """

    artifact: str
    repository: str
    private: bool = False
    public: bool = False
    teachers: Literal["with", "hash", "none"] = "with"
    revision: str | None = None
    labels: Literal["with", "apart", "online"] = "with"
    dry_run: bool = False
    space: bool = False
    num_steps: int = 4

    def __post_init__(self) -> None:
        require(self.num_steps >= 0, "num_steps", self.num_steps, "0 or more")


@dataclass(frozen=True)
class PushStudentOptions(Options):
    """Make a saved student a model repository on the Hub.

    Args:
        folder: Folder that train-student --save_student wrote.
        repository: Model repository, ORG/MODEL; created if need be.
        private: Make a new model repository private.
    """

    folder: str
    repository: str
    private: bool = False


@dataclass(frozen=True)
class SendResultOptions(Options):
    """Offer an evaluation to the dataset it was measured on, as a pull request.

    Args:
        result: JSON file that train-student wrote.
        repository: Dataset repository, ORG/NAME.
        revision: Commit or tag it was measured on, if the result does not name it.
    """

    result: str
    repository: str
    revision: str | None = None


@dataclass(frozen=True)
class ExportOptions(Options):
    """Write the images and labels of an artifact in a form that other programs read.

    Args:
        artifact: Run folder, or ORG/NAME on the Hub.
        output: Folder for them, new or empty.
        form: A folder of images for each class, with the views and labels of each epoch as tensors; or tensors as
            DD-Ranking takes them (arXiv 2505.13300), with one label for each whole image.
        revision: Tag, branch or commit on the Hub.
    """

    artifact: str
    output: str
    form: Literal["image_folder", "dd_ranking"] = "image_folder"
    revision: str | None = None
