"""CV-DD: Dataset Distillation via Committee Voting (Cui et al.; 2025).

Paper: https://arxiv.org/abs/2501.07575.
Reference code: https://github.com/Jiacheng8/CV-DD at 24097e9 (read for facts, not copied).

SRe2L++ with several teachers. Each image index has a committee of two, and both see every view; a member counts for
what it has proved to be worth on its own (`fadrm_hf.pipeline.votes`), and so does every teacher where all of them
label. Known differences: votes are measured on held-out training images, not on test images; committees are drawn with
a seed.
"""

import math
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING, Literal

from fadrm_hf.config import LARGEST_SMALL_SIZE, RunConfig, VoteConfig, require
from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.method import Settings, merged, pool
from fadrm_hf.methods.sre2l_pp import SQUEEZE, SRe2LPlusPlus, label_batch_size

if TYPE_CHECKING:
    from torch import Tensor

    from fadrm_hf.recovery.recover import Recovery


@dataclass(frozen=True)
class CVDD(SRe2LPlusPlus, VoteConfig):
    """Recovery by committees.

    Args:
        committee_size: N: teachers in a committee.
        committees: Which ones: those of the "largest" votes (the released scripts at IPC 1, with exceptions); all
            committees "in_turn", one for each image index, then random ones (at IPC 10, with ten pairs); or "random"
            ones for every index (at IPC 50, without a seed).
        temperature: How little votes matter in a committee, whose weights are softmax(vote / temperature) of votes in
            per cent.
    """

    name = "cv_dd"
    title = "CV-DD"
    min_teachers = 2
    needs_votes = True

    committee_size: int = 2
    committees: Literal["largest", "in_turn", "random"] = "in_turn"
    temperature: float = 5.0  # released code

    def __post_init__(self) -> None:
        SRe2LPlusPlus.__post_init__(self)
        VoteConfig.__post_init__(self)
        require(self.committee_size >= 1, "method.committee_size", self.committee_size, "at least 1")
        require(self.temperature > 0, "method.temperature", self.temperature, "positive")

    def check(self, run: RunConfig) -> None:
        """Refuse a committee larger than the pool, and images of several committees in one batch."""
        super().check(run)
        num = len(run.teachers.names)
        if self.committee_size > num:
            raise ConfigError(
                f"method.committee_size is {self.committee_size}, expected at most {num}, the number of teachers; set "
                f"--method.committee_size {num} or less, or name more in --teachers.names"
            )
        if run.recover.layout != "ipc_major":
            raise ConfigError(
                f"recover.layout is {run.recover.layout!r}, and each image index has a committee of its own, so that "
                "images of several cannot be optimised together; set --recover.layout ipc_major"
            )

    def committee(self, ipc_index: int, votes: "Tensor") -> list[tuple[int, float]]:
        """Return the teachers that recover the images of an index, in the pool's order, with their weights.

        A random committee depends on the index alone, so that it is the same for all classes and in every run.

        Args:
            ipc_index: Which of each class's images.
            votes: (K,) of all teachers, fractions.
        """
        import torch

        from fadrm_hf.networks.teachers import vote_weights
        from fadrm_hf.runtime.randomness import generator

        num, size = len(votes), self.committee_size
        if self.committees == "largest":
            order = votes.argsort(descending=True, stable=True).tolist()
            members = tuple(sorted(order[:size]))
        elif self.committees == "in_turn" and ipc_index < math.comb(num, size):
            members = next(islice(combinations(range(num), size), ipc_index, None))
        else:
            order = torch.randperm(num, generator=generator(0, "committee", ipc_index)).tolist()
            members = tuple(sorted(order[:size]))
        weights = vote_weights(votes[list(members)], self.temperature).tolist()
        return list(zip(members, weights, strict=True))

    def recover(self, start: "Tensor", recovery: "Recovery") -> "Tensor":
        """Optimise the images once, with the whole committee on every view.

        The loss is sum_j w_j (CE_j + r_bn D_j) over its members j.
        """
        import torch

        committee = self.committee(int(recovery.ipc_indices[0]), torch.tensor(recovery.votes))
        return recovery.optimise(start, self.iterations, members=lambda iteration: committee)

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the released scripts' settings; committees at IPC 50 begin with all pairs instead of random ones."""
        width = "x0_5" if size <= LARGEST_SMALL_SIZE else "x1_0"
        shufflenet = f"shufflenet_v2_{width}"
        settings: Settings = {
            "teachers": pool(dataset, "resnet18", "resnet50", shufflenet, "mobilenet_v2", "densenet121"),
            "method": {"committees": "largest" if ipc == 1 else "in_turn", "vote_ipc": 50 if size <= 32 else 10},
            "relabel": {"epochs": 300, "batch_size": label_batch_size(dataset, ipc), "ensemble": "votes"},
            "student": {"name": "cv_dd"},
        }
        return merged(settings, SQUEEZE.get(dataset, {}))
