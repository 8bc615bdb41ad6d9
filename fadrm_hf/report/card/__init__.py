"""The card of an artifact: what the Hub, `load_dataset` and a reader are told, made from what was measured."""

from fadrm_hf.report.card.metadata import (
    card_configs,
    card_metadata,
    card_title,
    label_configs,
    licence_fields,
    method_name,
    nested_ipc,
    public_source,
)
from fadrm_hf.report.card.results import (
    ANALYSIS_NAME,
    NO_EVALUATIONS,
    ROWS,
    Result,
    read_results,
    replace_results,
    result_files,
)
from fadrm_hf.report.card.text import card_environment
from fadrm_hf.report.card.writing import render_card, write_card

__all__ = [
    "ANALYSIS_NAME",
    "NO_EVALUATIONS",
    "ROWS",
    "Result",
    "card_configs",
    "card_environment",
    "card_metadata",
    "card_title",
    "label_configs",
    "licence_fields",
    "method_name",
    "nested_ipc",
    "public_source",
    "read_results",
    "render_card",
    "replace_results",
    "result_files",
    "write_card",
]
