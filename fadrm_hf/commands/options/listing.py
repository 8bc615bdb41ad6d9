"""Options of the commands that list what there is: none."""

from dataclasses import dataclass

from fadrm_hf.commands.options.base import Options


@dataclass(frozen=True)
class MethodsOptions(Options):
    """List the methods of distillation, with their papers."""


@dataclass(frozen=True)
class SourcesOptions(Options):
    """List the datasets whose constants and recipes are known."""


@dataclass(frozen=True)
class TeachersOptions(Options):
    """List families of teachers, those of papers, and those trained here."""


@dataclass(frozen=True)
class StudentsOptions(Options):
    """List the students of the papers' tables."""
