"""The settings of votes on teachers, for methods that weight them."""

from dataclasses import dataclass

from fadrm_hf.config.checks import require


@dataclass(frozen=True)
class VoteConfig:
    """A teacher's vote: the accuracy of a student trained on what it distils alone (CV-DD, arXiv 2501.07575).

    Args:
        votes: What each teacher is worth, in per cent, where that is known. `None`: measured
            (`fadrm_hf.pipeline.votes`). The released code has constants instead, which are accuracies on test images.
        held_out: Fraction of each class's training images that are kept from distilling and measure the votes.
        vote_ipc: Images per class that each teacher distils for its vote; 50 for CIFAR and 10 for Tiny-ImageNet and
            ImageNet-1k in the released scripts.
        vote_iterations: Steps per image.
        vote_epochs: Epochs of the labels and of the student.
        vote_student: The student that is trained, by the protocol `cv_dd`.
    """

    votes: tuple[float, ...] | None = None
    held_out: float = 0.1
    vote_ipc: int = 10
    vote_iterations: int = 4000
    vote_epochs: int = 300
    vote_student: str = "timm/resnet18"

    def __post_init__(self) -> None:
        votes = self.votes
        fits = votes is None or (all(0.0 <= vote <= 100.0 for vote in votes) and max(votes, default=0.0) > 1.0)
        require(fits, "method.votes", votes, "accuracies in per cent, such as 63.0, one for each teacher")
        require(0.0 < self.held_out < 1.0, "method.held_out", self.held_out, "a fraction between 0 and 1")
        require(self.vote_ipc >= 1, "method.vote_ipc", self.vote_ipc, "at least 1 image per class")
        require(self.vote_iterations >= 1, "method.vote_iterations", self.vote_iterations, "at least 1")
        require(self.vote_epochs >= 1, "method.vote_epochs", self.vote_epochs, "at least 1")
