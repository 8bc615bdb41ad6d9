"""`fadrm-hf COMMAND`: the same programs as `accelerate launch recipes/COMMAND.py`.

    fadrm-hf distill --config recipes/configs/digits/fadrm_ipc10.yaml     source -> artifact
    fadrm-hf estimate --config recipes/configs/digits/fadrm_ipc10.yaml    what that takes: seconds, memory, disk
    fadrm-hf package --config recipes/configs/digits/fadrm_ipc10.yaml     what jobs with --shards K:N have recovered
    fadrm-hf train-teacher --architecture resnet18 --source.name DATASET   a teacher of your own
    fadrm-hf train-student ARTIFACT --student timm/resnet18                artifact -> accuracy
    fadrm-hf baselines runs/fadrm-digits-ipc10                             what to compare it with
    fadrm-hf compare --methods '[random_real,fadrm]'                       methods beside one another: one table
    fadrm-hf score ARTIFACT                                                size, entropy, diversity, HLR, IOR, LRS, ARS
    fadrm-hf recode runs/fadrm-digits-ipc10 runs/small --codec int4        the same artifact with smaller labels
    fadrm-hf publish runs/fadrm-digits-ipc10 ORG/NAME                      to the Hub: one commit, one tag
    fadrm-hf reproduce ORG/NAME                                            its number again, from the Hub alone
    fadrm-hf send-result RESULT.json ORG/NAME                              a number of yours, as a pull request
    fadrm-hf push-student DIR ORG/MODEL                                    a student, as a model repository
    fadrm-hf verify ARTIFACT                                               hashes, tables, sampled labels, leakage
    fadrm-hf import --images DIR --labels DIR                              an older release becomes an artifact
    fadrm-hf methods | students | sources                                  what there is, by name

An ARTIFACT is a run folder, or ORG/NAME on the Hub, perhaps with @REVISION.
Exit codes: 0 done; 1 verify or reproduce found a difference, or a method failed in compare; 2 a mistake in the input,
named; 130 interrupted.
"""

import errno
import importlib
import sys
from collections.abc import Sequence

from fadrm_hf.commands.output import fail, say
from fadrm_hf.errors import ConfigError, FadrmError, unknown

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

# Where each command is; its module is imported when it is called, since torch and datasets take seconds.
COMMANDS = {
    "distill": "making:distill_command",
    "package": "making:package_command",
    "estimate": "estimate:estimate_command",
    "train-teacher": "making:train_teacher_command",
    "train-student": "measuring:train_student_command",
    "baselines": "measuring:baselines_command",
    "compare": "compare:compare_command",
    "score": "scoring:score_command",
    "recode": "recode:recode_command",
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
        if command not in COMMANDS:
            raise ConfigError(unknown("command", command, COMMANDS))
        return _run(command, rest)
    except FadrmError as error:
        fail(str(error))
        return 2
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = f" at {error.filename}" if error.filename else ""
        fail(
            f"{error.strerror}{where}; what is finished is kept: free some space or make the folder writable, then "
            "run the same command again to go on"
        )
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        fail(
            f"out of memory ({(str(error).splitlines() or ['no more is told'])[0][:200]}); what is finished is kept: "
            "fadrm-hf estimate names the largest recover.batch_size that fits; else launch fewer processes, end other "
            "programs or take smaller images or teachers, then run the same command again to go on"
        )
        return 2
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on where it was")
        return 130


def _run(command: str, arguments: Sequence[str]) -> int:
    module, function = COMMANDS[command].split(":")
    code: int = getattr(importlib.import_module(f"fadrm_hf.commands.{module}"), function)(arguments)
    return code


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether Python, torch on a CPU or torch on a GPU could not get the memory it asked for."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or named


if __name__ == "__main__":
    sys.exit(main())
