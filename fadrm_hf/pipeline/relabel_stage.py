"""The soft labels: epoch by epoch, of images that stay on disk until a block of views needs them."""

from fadrm_hf.data.image_table import ImageTable
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.labels.relabel import Labeller, label_epoch
from fadrm_hf.networks.teachers import Teacher
from fadrm_hf.pipeline.job import Job
from fadrm_hf.runtime import tensor_files


def label_images(job: Job, teachers: list[Teacher]) -> None:
    """Label all stored epochs, as the run's codec stores them."""
    run = job.run
    epochs, mean, std = run.relabel.num_stored, run.source.mean, run.source.std
    codec = find_codec(run.relabel.codec)
    numbers = {_epoch_name(epoch): epoch for epoch in range(epochs)}
    images, there = _recovered_images(job).to(job.device), job.is_there("soft_labels")
    labeller = Labeller(teachers, run.relabel, mean, std, job.device) if codec.has_logits else None
    for epoch, task in job.units("relabel", numbers, there, images_of=lambda _: len(images)):
        table = label_epoch(images, labeller, run.relabel, run.seed, epoch, codec.encode)
        job.work.save("soft_labels", _epoch_name(epoch), table)
        task.advance(1)


def _recovered_images(job: Job) -> ImageTable:
    """Read all images, in the order of the image table."""
    names = [s.files[index] for index in range(job.run.ipc) for s in job.shards if index in s.files]
    return ImageTable([tensor_files.load_tensors(job.work.shard("recovered", name))["images"] for name in names])


def _epoch_name(epoch: int) -> str:
    return f"epoch{epoch:05d}"
