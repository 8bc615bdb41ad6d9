"""Importing what earlier methods have released: `import`."""

from collections.abc import Sequence

from fadrm_hf.commands.summary import Summary
from fadrm_hf.config import RelabelConfig, SourceConfig, StudentConfig, TeacherConfig, build
from fadrm_hf.pipeline.arguments import new_parser, parse
from fadrm_hf.pipeline.legacy import ImportConfig, import_release
from fadrm_hf.runtime.run_folder import RunFolder

_FROM_FILES = {"epochs", "batch_size", "cutmix", "stored_epochs"}


def import_command(arguments: Sequence[str]) -> Summary:
    """`fadrm-hf import`."""
    parser = new_parser("fadrm-hf import", "Make an artifact of an earlier release: images and FKD label files.")
    parser.add_argument("--images", type=str, required=True, help="Folder with a folder of images for each class.")
    parser.add_argument("--labels", type=str, required=True, help="Folder of epoch_0/batch_0.tar and so on.")
    parser.add_argument("--output", type=str, required=True, help="Run folder, the artifact to be.")
    parser.add_argument("--method.name", type=str, default="sre2l", help="The method that made the images.")
    parser.add_argument("--sampler_seed", type=int, default=42, help="The release's --fkd-seed.")
    parser.add_argument(
        "--teachers.names", type=tuple[str, ...], default=(), help="Who labelled; labels are then compared."
    )
    parser.add_argument("--teachers.class_order", type=str, default="refuse", help="refuse or mend.")
    parser.add_argument("--teachers.min_accuracy", type=float | None, default=None, help="Least top-1 accuracy.")
    parser.add_class_arguments(SourceConfig, "source")
    parser.add_class_arguments(RelabelConfig, "relabel", skip=_FROM_FILES)
    parser.add_class_arguments(StudentConfig, "student")
    parser.set_defaults({"relabel.batch_statistics": False})
    parsed = parse(parser, arguments)
    import_release(
        ImportConfig(
            images=parsed.images,
            labels=parsed.labels,
            output=parsed.output,
            method=parsed.method.name,
            sampler_seed=parsed.sampler_seed,
            source=SourceConfig(**parsed.source.as_dict()),
            teachers=TeacherConfig(**parsed.teachers.as_dict()) if parsed.teachers.names else None,
            relabel=RelabelConfig(**parsed.relabel.as_dict()),
            student=build(StudentConfig, parsed.student.as_dict()),
        )
    )
    paths = {"artifact": parsed.output, "card": RunFolder(parsed.output).card}
    return Summary(paths, following=["verify", parsed.output])
