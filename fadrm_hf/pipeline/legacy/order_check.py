"""Do the labels of a release belong to its images? Label files name images by their place in a shuffled order only.

Another file listing, sampler seed, batch size or version of PyTorch gives another order, and then every label is one
of another image. The first epoch says whether the images and the seed are right, the last whether the generator has
advanced as it should.
"""

import torch
from torch import Tensor

from fadrm_hf.errors import ArtifactError
from fadrm_hf.labels.relabel import Labeller
from fadrm_hf.pipeline.legacy.release import Release

CHECKED_EPOCHS = 10
SIGNIFICANCE = 4.0  # standard deviations above chance

# Largest difference of a released logit from the one given to the view as it is drawn here, as a fraction of the
# largest in its row. Pillow, which drew the released views, rounds to grey levels after each axis, so that pixels
# differ by up to one. Measured with teachers of real sources, this moves a logit by up to 0.024 at 32 px and 0.002 at
# 224 px; another image or crop moves it by a tenth and more.
TOLERANCE = 2.0**-4


def compare_with_teachers(release: Release, labeller: Labeller) -> None:
    """Label the first batch of the first and of the last epoch again.

    Raises:
        ArtifactError: If the labels are not those that the teachers give.
    """
    for epoch, order in release.orders({0, len(release.epochs) - 1}):
        path = release.epochs[epoch][0]
        batch = release.read_batch(path)
        shown = order[: len(batch)] if batch.positions is None else batch.positions
        again = labeller.label(release.pixels(shown), batch.views(torch.arange(len(batch))))
        difference = _relative_difference(again, batch.logits)
        if not difference <= TOLERANCE:
            raise ArtifactError(
                f"the images are not in the order these labels were made in, or other teachers made them: in "
                f"{path.parent.name}/{path.name} labels differ by up to {difference:.0%} from the teachers' own, "
                f"expected at most {TOLERANCE:.0%}; see --images, --labels, --sampler_seed, --teachers.names and "
                "--relabel.batch_statistics"
            )


def compare_with_classes(release: Release, num_classes: int) -> None:
    """Check whether labels name the classes that their views show more often than labels of other images would.

    Raises:
        ArtifactError: If they do not.
    """
    last = len(release.epochs) - 1
    chosen = {round(last * part / (CHECKED_EPOCHS - 1)) for part in range(CHECKED_EPOCHS)}
    hits, chances = [], []
    for epoch, order in release.orders(chosen):
        table = release.read_epoch(epoch, order)
        own, partner = table["image"] % num_classes, table["mix_image"] % num_classes
        top, is_mixed = table["logits"].argmax(dim=1), table["mix_image"] >= 0
        hits.append((top == own) | (is_mixed & (top == partner)))
        by_chance = 1 / num_classes
        chances.append(torch.where(is_mixed, 1 - (1 - by_chance) ** 2, by_chance))
    found, chance = torch.cat(hits).double(), torch.cat(chances).double()
    error = float((chance * (1 - chance)).sum().sqrt()) / len(chance)
    if found.mean() < chance.mean() + SIGNIFICANCE * error:
        raise ArtifactError(
            f"the images are not in the order these labels were made in: {found.mean():.0%} of the labels name a "
            f"class that their view shows, and chance gives {chance.mean():.0%}; see --images, --labels, "
            "--source.name and --sampler_seed, or give --teachers.names to compare the labels themselves"
        )


def _relative_difference(again: Tensor, logits: Tensor) -> float:
    """Return the largest difference of two tables of logits (n, C), each row as a fraction of the largest in it."""
    largest = torch.maximum(again.abs(), logits.abs()).amax(dim=1)
    return float(((again - logits).abs().amax(dim=1) / largest).max())
