"""`fadrm-hf COMMAND`: the same programs as `accelerate launch recipes/COMMAND.py`.

    fadrm-hf distill --config recipes/configs/digits/fadrm_ipc10.yaml     source -> artifact
    fadrm-hf estimate --config recipes/configs/digits/fadrm_ipc10.yaml    what that takes: seconds, memory, disk
    fadrm-hf package --config recipes/configs/digits/fadrm_ipc10.yaml     what jobs with --shards K:N have recovered
    fadrm-hf train-teacher --architecture resnet18 --source.name DATASET   a teacher of your own
    fadrm-hf train-student ARTIFACT --student timm/resnet18                artifact -> accuracy
    fadrm-hf baselines runs/fadrm-digits-ipc10                             what to compare it with
    fadrm-hf cross-architecture ARTIFACT --students '[resnet18,swin_tiny]'  many students: one table
    fadrm-hf whole-dataset --source.name DATASET --students '[resnet18]'    the bound: students trained on everything
    fadrm-hf continual-learning ARTIFACT --steps 5                         classes that arrive in steps
    fadrm-hf slim ARTIFACT --ratio 0.5                                     a VGG with half its channels
    fadrm-hf rank-architectures ARTIFACT                                   does it rank them as everything does?
    fadrm-hf compare --methods '[random_real,fadrm]'                       methods beside one another: one table
    fadrm-hf ablate --config SWEEP.yaml                                    one run, some settings changed: one table
    fadrm-hf score ARTIFACT                                                size, entropy, diversity, HLR, IOR, LRS, ARS
    fadrm-hf analyse ARTIFACT                                              the terms of Theorems 1 and 2
    fadrm-hf recode runs/fadrm-digits-ipc10 runs/small --codec int4        the same artifact with smaller labels
    fadrm-hf gallery ARTIFACT                                              a page to look at it, or at several
    fadrm-hf publish runs/fadrm-digits-ipc10 ORG/NAME                      to the Hub: one commit, one tag
    fadrm-hf reproduce ORG/NAME                                            its number again, from the Hub alone
    fadrm-hf send-result RESULT.json ORG/NAME                              a number of yours, as a pull request
    fadrm-hf push-student DIR ORG/MODEL                                    a student, as a model repository
    fadrm-hf verify ARTIFACT                                               hashes, tables, sampled labels, leakage
    fadrm-hf import --images DIR --labels DIR                              an older release becomes an artifact
    fadrm-hf methods | students | sources                                  what there is, by name

An ARTIFACT is a run folder, or ORG/NAME on the Hub, perhaps with @REVISION.
Exit codes: 0 done; 1 verify or reproduce found a difference, or a part of compare or ablate failed; 2 a mistake in the
input, named; 130 interrupted (Ctrl-C); 143 ended by SIGTERM.
"""

import errno
import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

from fadrm_hf.commands.ending import Ended, ends_when_asked, told_of
from fadrm_hf.commands.output import fail, say
from fadrm_hf.errors import ConfigError, FadrmError, is_lack_of_memory, unknown

# What a disk may refuse, and what to do about it.
_SPACE, _RIGHTS = "free some space", "make that folder writable, or set --output to another one"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: f"{_SPACE}, or have your quota raised",
    errno.EFBIG: "allow larger files (ulimit -f), or set --output to a file system that takes them",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: "look after the disk",
}

# Where each command is; its module is imported when it is called, since torch and datasets take seconds.
COMMANDS = {
    "distill": "making:distill_command",
    "package": "making:package_command",
    "estimate": "estimate:estimate_command",
    "train-teacher": "making:train_teacher_command",
    "train-student": "measuring:train_student_command",
    "baselines": "measuring:baselines_command",
    "cross-architecture": "cross_architecture:cross_architecture_command",
    "whole-dataset": "whole_dataset:whole_dataset_command",
    "continual-learning": "continual_learning:continual_learning_command",
    "slim": "slimming:slim_command",
    "rank-architectures": "architecture_search:rank_architectures_command",
    "compare": "compare:compare_command",
    "ablate": "ablate:ablate_command",
    "score": "scoring:score_command",
    "analyse": "analysis:analyse_command",
    "recode": "recode:recode_command",
    "gallery": "gallery:gallery_command",
    "publish": "publish:publish_command",
    "push-student": "contribute:push_student_command",
    "send-result": "contribute:send_result_command",
    "reproduce": "reproduce:reproduce_command",
    "verify": "checking:verify_command",
    "import": "import_legacy:import_command",
    "methods": "listing:methods_command",
    "students": "listing:students_command",
    "sources": "listing:sources_command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is returned."""
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if command in ("-h", "--help"):
        say((__doc__ or "").strip())
        return 0
    try:
        with ends_when_asked():
            return _run(command, rest)
    except (FadrmError, OSError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
        explained = _explain(error)
        if explained is None:
            raise
    # Not above: while the error is handled, bars are still shown and would be drawn once more, below the message.
    message, code = explained
    fail(message)
    if arguments is None:  # nothing else is to be done here, and Python would take a second to take torch apart
        sys.stdout.flush()
        os._exit(code)
    return code


def _explain(error: BaseException) -> tuple[str, int] | None:
    """Why a command ends, with the remedy, and its exit code; `None` for an error that nobody foresaw."""
    if isinstance(error, FadrmError):
        return str(error), 2
    if isinstance(error, KeyboardInterrupt):
        return told_of(error.number if isinstance(error, Ended) else signal.SIGINT)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        where = f" at {error.filename}" if error.filename else ""
        return (
            f"{os.strerror(error.errno)}{where}; what is finished is kept: {_REMEDIES[error.errno]}, then run the "
            "same command again to go on"
        ), 2
    if is_lack_of_memory(error):
        return (
            f"out of memory ({(str(error).splitlines() or ['no more is told'])[0][:200]}); what is finished is kept: "
            "fadrm-hf estimate names the largest recover.batch_size that fits; else launch fewer processes, end other "
            "programs or take smaller images or teachers, then run the same command again to go on"
        ), 2
    return None


def _run(command: str, arguments: Sequence[str]) -> int:
    if command not in COMMANDS:
        raise ConfigError(unknown("command", command, COMMANDS))
    module, function = COMMANDS[command].split(":")
    code: int = getattr(_load(f"fadrm_hf.commands.{module}"), function)(arguments)
    return code


def _load(name: str) -> ModuleType:
    """A module, a third sooner: the collector would look through all that is loaded, again and again, for nothing."""
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
