"""What a stage logs and shows."""

import json

from fixtures.runs import work_of

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.pipeline.recode import recode
from fadrm_hf.publishing.verify import verify_artifact
from fadrm_hf.runtime import terminal
from fadrm_hf.runtime.progress import Reporter


def test_every_unit_is_one_line_of_the_log(tmp_path):
    log = tmp_path / "run.work/log.jsonl"
    reporter = Reporter(log, quiet=True)
    with reporter.stage("recover", 3) as task:
        task.advance(2, ce=1.5)
        task.note(ce=1.25)
        task.advance()
    with reporter.stage("relabel", 1) as task:
        task.advance()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["stage"], line["units"], line.get("ce")) for line in lines] == [
        ("recover", 2, 1.5),
        ("recover", 2, 1.25),
        ("recover", 3, None),
        ("relabel", 1, None),
    ]
    assert all(line["seconds"] >= 0 for line in lines)


def test_a_bar_shows_stage_units_and_metrics_on_stderr(capsys):
    reporter = Reporter()
    with reporter.stage("squeeze", 4) as task:
        task.advance(3, loss=0.125)
    shown = capsys.readouterr()
    assert "squeeze" in shown.err and "3/4" in shown.err and "loss 0.125" in shown.err
    assert shown.out == ""


def test_accuracies_are_shown_in_percent_as_results_show_them_and_logged_as_fractions(tmp_path, capsys):
    with Reporter(tmp_path / "log.jsonl").stage("student soft", 1) as task:
        task.advance(1, loss=0.5, top1=0.9166)
    assert "top1 91.7% loss 0.5" in capsys.readouterr().err
    assert json.loads((tmp_path / "log.jsonl").read_text())["top1"] == 0.9166


def test_the_quiet_show_nothing(capsys):
    reporter = Reporter(quiet=True)
    reporter.say("not shown")
    with reporter.stage("squeeze", 1) as task:
        task.advance()
    assert capsys.readouterr() == ("", "")


def test_a_message_is_one_line_however_long(capsys):
    Reporter().say("a/very/long/path/" * 20 + "[artifact]")
    assert capsys.readouterr().err == "a/very/long/path/" * 20 + "[artifact]\n"


def test_where_there_is_no_terminal_a_line_now_and_then_tells_of_the_stage(capsys, monkeypatch):
    monkeypatch.setattr("fadrm_hf.runtime.progress._SAY_EVERY", 0.0)
    with Reporter().stage("recover", 4000) as task:
        task.skip(1000)
        task.advance(1500, ce=1.5)
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith("recover 2,500/4,000, ") and line.endswith(" s left ce 1.5")


def test_who_waits_for_others_hears_of_every_unit():
    heard = []
    with Reporter(quiet=True).heard_by(lambda: heard.append("still at work")).stage("pack images", 3) as task:
        task.advance()
        task.advance(2)
    assert heard == ["still at work"] * 2


def units_told(log):
    """Of every stage of a log, the units that were done at its end."""
    return {line["stage"]: line["units"] for line in map(json.loads, log.read_text().splitlines())}


def test_all_that_takes_minutes_at_full_size_tells_how_far_it_is(finished, tmp_path):
    manifest = read_manifest(finished)
    tables = [name for name in manifest.files if name.endswith(".parquet")]
    packed = units_told(work_of(finished) / "log.jsonl")
    assert (packed["pack images"], packed["pack labels"]) == (1, manifest.label_epochs)  # a hundred images are a unit
    assert packed["gallery"] == 2 * manifest.ipc, "real patches and recovered images"
    log = tmp_path / "log.jsonl"
    assert verify_artifact(finished, 0, reporter=Reporter(log, quiet=True)) == []
    assert units_told(log) == {"verify": len(manifest.files) + len(tables)}
    log.unlink()
    recode(finished, tmp_path / "smaller", "int4", reporter=Reporter(log, quiet=True))
    assert units_told(log) == {"pack labels": manifest.label_epochs, "gallery": manifest.ipc}


def test_a_bar_is_whole_however_much_there_is_to_say(capsys):
    with Reporter().stage("student soft", 4) as task:
        task.advance(3, **{f"a_long_metric_{number}": 1 / 3 for number in range(9)})
    (shown,) = capsys.readouterr().err.splitlines()
    assert "student soft" in shown and "3/4" in shown and "a_long_metric_0" in shown and shown.rstrip().endswith("…")


def test_what_is_chosen_for_a_block_ends_with_it(capsys):
    with terminal.speaking(quiet=True, document=True):
        Reporter().say("not shown")
        terminal.results.print("nor this")
    assert capsys.readouterr() == ("", "")
    Reporter().say("progress")
    terminal.results.print("results")
    assert capsys.readouterr() == ("results\n", "progress\n")
