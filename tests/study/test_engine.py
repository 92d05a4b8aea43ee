"""Real Dask workers make a study: killed, stopped, doubled, refused, each run is there once and right."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from hgsr_lite.study.command import add_arguments, carry_out
from hgsr_lite.study.engine import make_all
from hgsr_lite.study.job import Job, WrongVersionsError, commit_of, make_run, versions
from hgsr_lite.study.measurement import SPARSITY_METRICS
from hgsr_lite.study.runs import RunFolder, write_whole
from hgsr_lite.study.study import Study

pytestmark = pytest.mark.trains

TEXT = """
[images]
limit = 150
[shared]
width = 0.25
epochs = 2
finetune = 1
seed = [0, 1]
[[grid]]
baseline = "dense"
[[grid]]
baseline = "magnitude"
unit = "feature"
share = 0.5
[[grid]]
penalty = ["hsq_gl12", "gl"]
fraction = 1
proximal = [true, false]
[[grid]]
penalty = "hsq_es"
fraction = 1e9
"""
RUNS = 14


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "small.toml").write_text(TEXT)
    return Study.read(tmp_path / "small.toml")


@pytest.fixture(scope="module")
def plain() -> dict[str, dict]:
    """The same runs by a plain loop, without engine."""
    import tempfile

    path = Path(tempfile.mkdtemp(), "small.toml")
    path.write_text(TEXT)
    study = Study.read(path)
    return {key: make_run(recipe, study.data) for key, recipe in study.keys().items()}


def without_clocks(record: dict) -> dict:
    epochs = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in record["epochs"]]
    parts = {name: record.get(name) for name in ("ended", "metrics", "layers", "notes")}
    return {**parts, "epochs": epochs}


def assert_complete_and_right(study: Study, plain: dict[str, dict]) -> None:
    runs = study.folder.read()
    assert study.folder.damaged == {}
    assert runs.keys() == plain.keys()
    for key, run in runs.items():
        # repr: a missing figure is NaN, which equals nothing
        assert repr(without_clocks(run.record)) == repr(without_clocks(plain[key])), run.recipe.name


def command(study: Study, *more: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "hgsr_lite", "study", "run", str(study.path), *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(line, start_new_session=True, **pipes)


def wait_for_files(study: Study, count: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 600
    while len(list(study.folder.path.glob("*.json"))) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "no run was written"
        time.sleep(0.05)


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    below = psutil.Process(process.pid).children(recursive=True)
    named = {child: " ".join(child.cmdline()) for child in below}
    # Dask names its workers where it can.
    return [child for child, name in named.items() if "dask worker" in name or "spawn_main" in name]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_killed_in_mid_run_costs_no_run_and_no_bit(study, plain):
    process = command(study, "--workers", "2")
    wait_for_files(study, 2, process)
    workers_of(process)[-1].kill()
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert f"{RUNS} runs written" in out
    assert "2 of them diverged" in out
    assert_complete_and_right(study, plain)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_second_ctrl_c_does_not_cut_the_end_short(study):
    process = command(study, "--workers", "1")
    wait_for_files(study, 2, process)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    assert study.folder.read().keys() | study.missing().keys() == study.keys().keys()
    assert study.folder.damaged == {}


def test_a_script_that_runs_itself_again_in_every_worker_is_told_what_it_lacks(study):
    script = study.path.with_name("script.py")
    script.write_text(f"from hgsr_lite.study import Study\nStudy.read({str(study.path)!r}).run(workers=1)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert 'a script has to call this under `if __name__ == "__main__":`' in done.stderr


def test_a_device_that_is_not_here_is_refused_before_a_worker_starts(study):
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used here"):
        study.make(device="nowhere")
    assert not study.folder.path.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_driver_and_one_stopped_by_ctrl_c_go_on_where_they_were(study, plain):
    first = command(study, "--workers", "1")
    wait_for_files(study, 2, first)
    orphans = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    second = command(study, "--workers", "1")
    wait_for_files(study, 4, second)
    os.killpg(second.pid, signal.SIGINT)  # a terminal sends Ctrl-C to the whole group
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 130, out
    assert "interrupted: the same command goes on" in out
    assert "Traceback" not in out
    made = {file.name: file.stat().st_mtime_ns for file in study.folder.path.glob("*.json")}
    assert study.make(workers=1, progress=False).written == RUNS - len(made)
    assert_complete_and_right(study, plain)
    assert made.items() <= {f.name: f.stat().st_mtime_ns for f in study.folder.path.glob("*.json")}.items()
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert alive == [], "a dead driver's workers end by themselves"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_and_its_workers_killed_at_once_cost_no_written_run_and_no_bit(study, plain):
    process = command(study, "--workers", "2")
    wait_for_files(study, 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = {file.name: file.stat().st_mtime_ns for file in study.folder.path.glob("*.json")}
    assert study.make(workers=1, progress=False).written == RUNS - len(made)
    assert_complete_and_right(study, plain)
    assert made.items() <= {f.name: f.stat().st_mtime_ns for f in study.folder.path.glob("*.json")}.items()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_drivers_share_the_work_and_make_no_run_twice(study, plain):
    drivers = [command(study, "--workers", "1") for _ in range(2)]
    outs = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outs
    written = [int(out.split(" runs written")[0].split()[-1]) for out in outs]
    assert sum(written) == RUNS, outs
    assert_complete_and_right(study, plain)


@pytest.mark.slow
def test_an_existing_cluster_makes_the_same_runs(study, plain):
    with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=None) as cluster:
        outcome = study.make(scheduler=cluster.scheduler_address, progress=False)
    assert (outcome.written, outcome.diverged, outcome.failed) == (RUNS, 2, {})
    assert_complete_and_right(study, plain)
    table = study.run()
    assert table["diverged"].sum() == 2
    assert table["key"].tolist() == list(study.keys())


class Here:
    """An executor that works in this process: what an executor must do, and no more."""

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def jobs_of(study: Study, wanted: dict[str, str] | None = None) -> dict[str, Job]:
    expected = tuple((versions() if wanted is None else wanted).items())
    images = study.grid.images
    return {key: Job(recipe, images, study.fingerprint, expected) for key, recipe in study.keys().items()}


def test_a_worker_with_other_versions_is_refused_and_both_versions_named(study):
    study.folder.check_writable()
    jobs = jobs_of(study, {**versions(), "torch": "1.0.0"})
    with pytest.raises(WrongVersionsError, match=r"torch \d\.\d+\.\d\S* \(wanted 1\.0\.0\)"):
        make_all(jobs, study.folder, Here(), 1, progress=False)
    assert study.folder.read() == {}


@pytest.mark.slow
def test_the_command_refuses_real_workers_of_other_versions_in_one_line(study, monkeypatch, capsys):
    """The workers are another process with the versions that are installed; the driver says it has others."""
    monkeypatch.setattr("hgsr_lite.study.study.versions", lambda: {**versions(), "torch": "1.0.0"})
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=None) as cluster:
        line = ["run", str(study.path), "--scheduler", cluster.scheduler_address]
        assert carry_out(parser.parse_args(line)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        rf"this worker has other versions: torch {version('torch')}.* \(wanted 1\.0\.0\)", said
    )
    assert study.folder.read() == {}


def test_a_place_that_cannot_be_written_is_refused_before_a_worker_starts(study, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    study.folder = RunFolder(tmp_path / "file" / "runs")
    monkeypatch.setattr("hgsr_lite.study.study.dask_executor", None)
    with pytest.raises(ValueError, match=r"run files cannot be written to .*give another folder, --runs"):
        study.make(progress=False)


def test_a_worker_with_other_images_makes_no_run(study):
    study.folder.check_writable()
    study.__dict__["fingerprint"] = "0" * 16
    outcome = make_all(jobs_of(study), study.folder, Here(), 1, progress=False)
    assert outcome.written == 0
    assert len(outcome.failed) == RUNS
    assert "are not the driver's: fingerprint" in next(iter(outcome.failed.values()))


@pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="mounting needs root")
def test_a_disk_that_fills_up_stops_the_study_with_every_written_run_whole(study, plain, tmp_path):
    small = tmp_path / "disk"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", small]).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        study.folder = RunFolder(small)
        study.folder.check_writable()
        with pytest.raises(ValueError, match=r"No space left on device.*make room and start again"):
            make_all(jobs_of(study), study.folder, Here(), 1, progress=False)
        there = study.folder.read()
        assert 0 < len(there) < RUNS
        assert study.folder.damaged == {}
        subprocess.run(["mount", "-o", "remount,size=10m", small], check=True)
        outcome = make_all(
            {key: job for key, job in jobs_of(study).items() if key in study.missing()},
            study.folder, Here(), 1, progress=False,
        )  # fmt: skip
        assert outcome.written == RUNS - len(there)
        assert_complete_and_right(study, plain)
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_damaged_file_costs_its_run_alone_and_is_made_again(study, plain):
    study.folder.check_writable()
    make_all(jobs_of(study), study.folder, Here(), 1, progress=False)
    cut, edited, *_ = sorted(study.folder.path.glob("*.json"))
    cut.write_text(cut.read_text()[:-100])
    edited.write_text(edited.read_text().replace('"seed": 0', '"seed": 7'))
    missing = study.missing()
    assert set(missing) == {cut.stem, edited.stem} == {Path(name).stem for name in study.folder.damaged}
    made = make_all(study.jobs(missing.values(), "cpu"), study.folder, Here(), 1, progress=False)
    assert made.written == 2
    assert_complete_and_right(study, plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[grid]]\nbaseline = 'dense'\n[[grid]]\npenalty = 'gl'\nfraction = 1\nlayers = 'features.conv9'",
         r"small.toml, gl feature fraction 1 seed 0: .*conv9"),
        ("[images]\nname = 'digts'\n[[grid]]\nbaseline = 'dense'",
         r"small.toml, \[images\]: .*'digts'.*digits"),
        ("[images]\nvalidation = 2.0\n[[grid]]\nbaseline = 'dense'",
         r"small.toml, \[images\]: .*validation"),
    ],
)  # fmt: skip
def test_what_no_run_could_do_is_refused_before_anything_is_trained(tmp_path, text, message):
    (tmp_path / "small.toml").write_text(text)
    study = Study.read(tmp_path / "small.toml")
    for attempt in (study.make, study.predicted_seconds):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert not study.folder.path.exists()


def test_a_place_where_no_table_can_be_written_is_named_before_anything_is_trained(study, monkeypatch):
    def read_only(path: Path, text: str) -> None:
        if path.parent == study.path.parent:
            raise OSError(errno.EROFS, "Read-only file system")
        write_whole(path, text)

    monkeypatch.setattr("hgsr_lite.study.runs.write_whole", read_only)
    with pytest.raises(ValueError, match=r"small.csv cannot be written \(Read-only file system\): copy"):
        study.run()
    assert not study.folder.path.exists()


def test_a_dry_run_counts_and_trains_nothing(study):
    assert study.predicted_seconds() > 0
    assert not study.folder.path.exists()
    assert len(study.missing()) == RUNS


def test_the_predicted_time_is_that_of_the_runs_to_a_factor_of_three(tmp_path):
    (tmp_path / "longer.toml").write_text(
        "[shared]\nepochs = 8\nfinetune = 2\n[[grid]]\nbaseline = 'dense'\n"
        "[[grid]]\npenalty = ['gl', 'hsqrt_gl12']\nfraction = 1\nproximal = true"
    )
    study = Study.read(tmp_path / "longer.toml")
    # The median: a probe is some steps long, and another program may take the core in one of them.
    predicted = statistics.median(study.predicted_seconds() for _ in range(3))
    taken = sum(make_run(recipe, study.data)["seconds"] for recipe in study.grid.recipes)
    assert taken / 3 < predicted < 3 * taken


def test_the_command_s_dry_run_says_how_many_runs_are_missing_and_how_long_they_take(study, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert carry_out(parser.parse_args(["run", str(study.path), "--dry-run", "--workers", "2"])) == 0
    number = r"(\d\S*)"
    times = rf"about {number} hours of one core, {number} hours with 2 at once"
    expected = rf"{RUNS} of {RUNS} runs are missing: {times}, if nothing else runs\n"
    said = re.fullmatch(expected, capsys.readouterr().out)
    alone, shared = map(float, said.groups())
    assert alone > 0
    assert shared == pytest.approx(alone / 2, rel=0.1)
    assert not study.folder.path.exists()


def test_a_dry_run_measures_on_the_device_that_is_asked_for(study, monkeypatch, capsys):
    """The meta device computes nothing, everywhere: a step on it is a step that is not the processor's."""
    seen = []
    monkeypatch.setattr(
        "hgsr_lite.study.forecast._probe",
        lambda recipe, data: seen.append(data.device.type) or (36_000.0, 0.0),
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert carry_out(parser.parse_args(["run", str(study.path), "--dry-run", "--device", "meta"])) == 0
    assert set(seen) == {"meta"}
    said = capsys.readouterr().out
    assert re.search(r"about [\d,]+ hours on meta one after the other, less with several at once", said)
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used here"):
        carry_out(parser.parse_args(["run", str(study.path), "--dry-run", "--device", "nowhere"]))


def test_a_dry_run_of_a_warmed_up_penalty_warns_of_nothing(tmp_path):
    """The runs themselves tell the penalty how far they are; so does the probe."""
    file = tmp_path / "warm.toml"
    file.write_text('[images]\nlimit = 100\n[[grid]]\npenalty = "gl"\nfraction = 1\nwarmup = 0.3\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Study.read(file).predicted_seconds() > 0


def test_a_record_holds_what_is_needed_to_repeat_it(plain):
    record = next(iter(plain.values()))
    assert {"torch", "numpy", "python", "processor", "device", "commit"} <= record["environment"].keys()
    wanted = ("validation", "test")
    stages = ("", " after zeroing", " after removal", " after fine-tuning")
    assert {f"{part} accuracy{stage}" for part in wanted for stage in stages} <= record["metrics"].keys()
    assert {"validation loss", *SPARSITY_METRICS} <= record["metrics"].keys()
    assert record["seconds"] > 0


def test_a_diverged_run_is_recorded_with_its_reason(plain):
    diverged = [record for record in plain.values() if record["ended"] != "finished"]
    assert len(diverged) == 2
    assert all("lower the strength" in record["ended"] for record in diverged)
    assert diverged[0]["metrics"].keys() == {"calibrated strength"}


def test_a_commit_has_a_plus_wherever_in_the_package_a_file_was_changed(tmp_path):
    """Training decides a run as much as the study's own files do."""
    package = tmp_path / "package"
    (package / "training").mkdir(parents=True)
    (package / "training" / "loop.py").write_text("first")
    (tmp_path / "README.md").write_text("first")
    assert commit_of(package) == ""
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit = commit_of(package)
    assert re.fullmatch(r"[0-9a-f]{10}", commit)
    (tmp_path / "README.md").write_text("changed beside the package")
    assert commit_of(package) == commit
    (package / "training" / "loop.py").write_text("changed")
    assert commit_of(package) == f"{commit}+"
