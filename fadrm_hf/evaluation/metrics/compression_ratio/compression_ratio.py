"""How many times as large as what students train on its source is; more is better."""

import datasets
import evaluate

from fadrm_hf.evaluation.scores import compression_ratio

_INPUTS = """
Args:
    predictions: sizes of distilled datasets, in images, or in bytes of images and labels together.
    references: sizes of their sources, in the same unit; several are added up.
"""


class CompressionRatio(evaluate.Metric):
    """Compression ratio."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"compression_ratio": compression_ratio(sum(references), sum(predictions))}
