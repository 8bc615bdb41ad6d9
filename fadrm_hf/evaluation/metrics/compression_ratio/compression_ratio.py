"""Size of a source as a multiple of what students train on in its place; more is better."""

from fadrm_hf.evaluation import metrics
from fadrm_hf.evaluation.scores import compression_ratio


class CompressionRatio(metrics.Score):
    """Compression ratio.

    Args:
        predictions: sizes of distilled datasets, in images, or in bytes of images and labels together.
        references: sizes of their sources, in the same unit; several are added up.
    """

    columns = metrics.integers("predictions")

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"compression_ratio": compression_ratio(sum(references), sum(predictions))}
