"""The series as a job: real notebooks, run by real kernels."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from filelock import FileLock

from hgsr_lite.__main__ import main
from hgsr_lite.series import run as series
from hgsr_lite.series.committed import clean, source_hash, write_time_line

PARAMETERS = ('DATASET = "digits"\nFAST = False', "parameters")


def outputs(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return ["".join(o.get("text", "") for o in cell.outputs) for cell in cells if cell.cell_type == "code"]


def run(folder: Path, *arguments: str) -> int:
    return main(
        ["run", "--notebooks", str(folder / "notebooks"), "--build", str(folder / "build"), *arguments]
    )


def test_notebooks_run_in_order_and_close_with_a_table(tmp_path, write_notebook, capfd):
    record = (
        "import json, os\n"
        "row = dict(accuracy=0.991, accuracy_after_zeroing=0.93, parameters=4321)\n"
        "row |= dict(in_living_kernels=7, macs=9, macs_in_living_kernels=8)\n"
        "with open(os.environ['HGSR_RESULTS'], 'a') as lines:\n"
        "    for page, network in (('05', 'sparse'), ('00', 'dense')):\n"
        "        lines.write(json.dumps({'page': page, 'network': network, **row}) + '\\n')\n"
    )
    write_notebook(tmp_path / "notebooks" / "01_second.ipynb", "print('second')")
    write_notebook(tmp_path / "notebooks" / "00_first.ipynb", record)
    assert run(tmp_path, "--at-once", "1") == 0
    screen = capfd.readouterr()
    assert screen.out.index("00_first") < screen.out.index("01_second") < screen.out.index("test accuracy")
    rows = [line.split() for line in screen.out.splitlines() if "4,321" in line]
    assert [row[:3] for row in rows] == [["00", "dense", "99.1"], ["05", "sparse", "99.1"]]
    assert rows[0][-4:] == ["4,321", "7", "9", "8"]
    assert outputs(tmp_path / "build" / "run" / "01_second.ipynb") == ["second\n"]


def test_a_failing_notebook_stops_the_series_and_names_its_cell(tmp_path, write_notebook, capfd):
    write_notebook(
        tmp_path / "notebooks" / "00_breaks.ipynb",
        "print('fine')",
        PARAMETERS,
        "strength = -1\nraise ValueError('strength is -1; use 0 or more.')",
    )
    write_notebook(tmp_path / "notebooks" / "01_never.ipynb", "print('never')")
    assert run(tmp_path, "--fast", "--at-once", "1") != 0
    message = capfd.readouterr().err
    assert "00_breaks.ipynb stopped in cell 3 (In [4]: strength = -1)" in message
    assert message.rstrip().endswith("ValueError: strength is -1; use 0 or more.")
    assert "\x1b[" not in message.partition("00_breaks.ipynb stopped")[2]
    assert not (tmp_path / "build" / "run" / "01_never.ipynb").exists()


def test_two_notebooks_run_side_by_side(tmp_path, write_notebook):
    waits = (
        "import json, os, pathlib, time\n"
        "pathlib.Path('{mine}').touch()\n"
        "patience = time.monotonic() + 120\n"
        "while not pathlib.Path('{other}').exists():\n"
        "    assert time.monotonic() < patience\n"
        "    time.sleep(0.05)"
    )
    folder = tmp_path / "notebooks"
    write_notebook(folder / "00_a.ipynb", waits.format(mine="a", other="b"))
    write_notebook(folder / "01_b.ipynb", waits.format(mine="b", other="a"))
    here = Path.cwd()
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(tmp_path, "--at-once", "2") == 0
        gc.collect()
    assert not [str(one.message) for one in caught if one.category is ResourceWarning]
    assert Path.cwd() == here


def test_an_interrupted_series_ends_at_once_and_leaves_no_kernel_behind(tmp_path, write_notebook):
    wait = "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(100)"
    path = write_notebook(tmp_path / "notebooks" / "00_long.ipynb", wait)
    command = [
        sys.executable,
        "-m",
        "hgsr_lite",
        "run",
        "--notebooks",
        str(path.parent),
        "--build",
        str(tmp_path),
    ]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    pid = path.parent / "pid"
    patience = time.monotonic() + 120
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < patience
        time.sleep(0.1)
    job.send_signal(signal.SIGINT)
    _, message = job.communicate(timeout=60)
    assert job.returncode == 130
    assert message.rstrip().endswith("interrupted")
    assert not psutil.pid_exists(int(pid.read_text()))


def test_no_notebook_at_once_is_refused(tmp_path, write_notebook, capfd):
    write_notebook(tmp_path / "notebooks" / "00_a.ipynb", "1")
    assert run(tmp_path, "--at-once", "0") != 0
    assert "at_once must be a whole number of at least 1, not 0" in capfd.readouterr().err


def test_a_dying_kernel_is_reported_by_the_notebooks_name(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "00_dies.ipynb", "import os\nos._exit(1)")
    with (
        series.kernel_environment(tmp_path / "build"),
        pytest.raises(series.NotebookError, match=r"00_dies\.ipynb stopped: .*[Kk]ernel died"),
    ):
        series.run_notebook(path, tmp_path / "out.ipynb")


def test_a_path_with_spaces_runs_and_the_kernel_works_beside_the_notebook(tmp_path, write_notebook):
    path = write_notebook(
        tmp_path / "my own notebooks" / "00_where.ipynb", "import pathlib; print(pathlib.Path.cwd().name)"
    )
    output = tmp_path / "the results" / "00.ipynb"
    with series.kernel_environment(tmp_path / "build here"):
        _, seconds = series.run_notebook(path, output)
    assert outputs(output) == ["my own notebooks\n"]
    assert seconds > 0


def test_only_declared_parameters_are_passed(tmp_path, write_notebook, capfd):
    folder = tmp_path / "notebooks"
    write_notebook(folder / "00_with.ipynb", PARAMETERS, "print(DATASET, FAST)")
    write_notebook(
        folder / "01_without.ipynb", ("SEED = 3", "parameters"), "print(SEED, 'FAST' in globals())"
    )
    assert run(tmp_path, "--fast", "--dataset", "mnist") == 0
    assert outputs(tmp_path / "build" / "run" / "00_with.ipynb")[-1] == "mnist True\n"
    assert outputs(tmp_path / "build" / "run" / "01_without.ipynb")[-1] == "3 False\n"
    assert run(tmp_path, "--epochs", "2") != 0
    message = capfd.readouterr().err
    assert "No notebook declares the parameter EPOCHS. Declared: DATASET, FAST, SEED." in message


def test_a_relative_image_folder_means_the_callers_folder(tmp_path, write_notebook, monkeypatch):
    write_notebook(tmp_path / "notebooks" / "00_a.ipynb", PARAMETERS, "print(DATASET)")
    (tmp_path / "my images").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, "--dataset", "my images") == 0
    shown = outputs(tmp_path / "build" / "run" / "00_a.ipynb")[-1].strip()
    assert Path(shown) == (tmp_path / "my images").resolve()


def test_kernels_use_this_python_whatever_a_users_folder_says(tmp_path, write_notebook, monkeypatch):
    foreign = tmp_path / "data" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "{connection_file}"], "display_name": "other", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "data"))
    path = write_notebook(tmp_path / "00_which.ipynb", "import sys; print(sys.prefix)")
    before = dict(os.environ)
    with series.kernel_environment(tmp_path / "build"):
        series.run_notebook(path, tmp_path / "out.ipynb")
    assert outputs(tmp_path / "out.ipynb") == [f"{sys.prefix}\n"]
    assert dict(os.environ) == before


def test_an_unknown_notebook_name_lists_those_there_are(tmp_path, write_notebook, capsys):
    write_notebook(tmp_path / "notebooks" / "00_start.ipynb", "1")
    assert run(tmp_path, "00_strat") != 0
    assert "No notebook '00_strat'. There are: 00_start. Did you mean 00_start?" in capsys.readouterr().err
    assert run(tmp_path / "elsewhere") != 0
    assert "No numbered notebooks" in capsys.readouterr().err


def test_executing_twice_gives_the_same_file(tmp_path, write_notebook, capsys):
    path = write_notebook(
        tmp_path / "notebooks" / "00_show.ipynb",
        "import pathlib, sys, tqdm\nprint(pathlib.Path.cwd() / 'x', object(), sys.prefix)",
        "for _ in tqdm.tqdm(range(3)): pass",
        "import warnings\nwarnings.warn('mind the step', stacklevel=1)",
    )
    arguments = ["execute", "--notebooks", str(path.parent), "--build", str(tmp_path / "build")]
    assert main(arguments) == 0
    first = path.read_bytes()
    assert main(arguments) == 0
    assert path.read_bytes() == first
    text = first.decode()
    for place in (str(tmp_path), sys.prefix, str(Path.home()) + "/", "0x", "ipykernel_", "papermill", "it/s"):
        assert place not in text
    assert "mind the step" in text
    notebook = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    assert notebook.metadata.hgsr.source_hash == source_hash(notebook)


def test_a_failing_notebook_is_not_overwritten_by_execute(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "notebooks" / "00_breaks.ipynb", "1 / 0")
    before = path.read_bytes()
    assert main(["execute", "--notebooks", str(path.parent), "--build", str(tmp_path / "build")]) != 0
    assert path.read_bytes() == before


def test_a_widget_leaves_a_still_picture(tmp_path, write_notebook):
    figure = "import matplotlib.pyplot as plt\ndef show(height=1):\n    plt.plot([0, height])\n    plt.show()"
    path = write_notebook(
        tmp_path / "00_widget.ipynb",
        f"%matplotlib inline\nimport ipywidgets\n{figure}",
        "ipywidgets.interactive(show, height=(0, 3))",
        "from IPython.display import display\nslider = ipywidgets.IntSlider()\n"
        "display(ipywidgets.VBox([slider, ipywidgets.interactive_output(show, {'height': slider})]))",
        "ipywidgets.IntSlider()",
    )
    with series.kernel_environment(tmp_path / "build"):
        executed, _ = series.run_notebook(path, tmp_path / "out.ipynb")
    cleaned = clean(executed, tmp_path)
    kinds = [[list(output.data) for output in cell.outputs] for cell in cleaned.cells]
    assert kinds == [[], [["image/png"]], [["image/png"]], []]
    assert "widgets" not in cleaned.metadata
    nbformat.validate(cleaned)


def test_a_styled_table_is_committed_alike_after_every_run(tmp_path):
    def committed(shown: int) -> str:
        html = pd.DataFrame({"figure": [shown]}).style.to_html()
        output = nbformat.v4.new_output("display_data", data={"text/html": html})
        cell = nbformat.v4.new_code_cell("table", outputs=[output])
        return clean(nbformat.v4.new_notebook(cells=[cell]), tmp_path).cells[0].outputs[0].data["text/html"]

    assert committed(1) == committed(1)
    table, other = (re.search(r'<table id="(T_\w+)"', committed(shown))[1] for shown in (1, 2))
    assert table != other
    assert f'id="{table}_row0_col0"' in committed(1)


def test_many_widgets_do_not_stall_a_notebook(tmp_path, write_notebook):
    widget = "slider = ipywidgets.IntSlider()\nipywidgets.interactive_output(print, {'end': slider})"
    path = write_notebook(tmp_path / "00_widgets.ipynb", "import ipywidgets", *[widget] * 40)
    with series.kernel_environment(tmp_path / "build"):
        executed, _ = series.run_notebook(path, tmp_path / "out.ipynb")
    assert executed.cells[-1].execution_count == 41


def test_a_measured_time_stands_in_the_header(tmp_path):
    header = nbformat.v4.new_markdown_cell("# 00\n\n**Runs in:** unknown yet.\n\nMore.")
    header.metadata["tags"] = ["header"]
    path = tmp_path / "00_a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[header, nbformat.v4.new_code_cell("1")]), path)
    build = str(tmp_path / "build")
    assert main(["timings", "--notebooks", str(tmp_path), "--build", build]) == 0
    text = nbformat.read(path, as_version=4).cells[0].source
    assert f" s on {series.available_cores()} CPU cores.\n" in text
    assert text.endswith("\n\nMore.")
    assert "yet" not in text


def test_a_header_without_a_time_line_is_an_error(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "00_bare.ipynb", "1")
    with pytest.raises(ValueError, match=r"00_bare\.ipynb has no line starting"):
        write_time_line(path, 3.0, 2, None)


def test_help_and_unknown_options_answer_from_the_command_line():
    command = [sys.executable, "-m", "hgsr_lite"]
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert all(name in told.stdout for name in ("run", "execute", "timings", "bench"))
    refused = subprocess.run([*command, "run", "--colour=blue"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "unrecognized arguments: --colour=blue" in refused.stderr


def test_a_second_run_into_the_same_folder_is_refused_and_the_first_keeps_its_table(
    tmp_path, write_notebook, capfd
):
    wait = (
        "import json, os, pathlib, time\n"
        "pathlib.Path('started').touch()\n"
        "while not pathlib.Path('go').exists():\n"
        "    time.sleep(0.05)\n"
        "row = dict(page='00', network='dense', accuracy=0.5, accuracy_after_zeroing=0.5, parameters=1,\n"
        "           in_living_kernels=1, macs=1, macs_in_living_kernels=1)\n"
        "pathlib.Path(os.environ['HGSR_RESULTS']).write_text(json.dumps(row) + '\\n')"
    )
    path = write_notebook(tmp_path / "notebooks" / "00_waits.ipynb", wait)
    options = ["run", "--notebooks", str(path.parent), "--build", str(tmp_path / "build")]
    first = subprocess.Popen(
        [sys.executable, "-m", "hgsr_lite", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    patience = time.monotonic() + 240
    while not (path.parent / "started").exists():
        assert time.monotonic() < patience
        time.sleep(0.1)
    assert run(tmp_path) == 1
    assert "Another run is writing into" in capfd.readouterr().err
    (path.parent / "go").touch()
    table, _ = first.communicate(timeout=240)
    assert first.returncode == 0
    assert table.count(" dense ") == 1


@pytest.mark.parametrize("command", ["execute", "timings"])
def test_a_second_execute_in_the_same_folder_is_refused_before_anything_is_written(
    tmp_path, write_notebook, capfd, command
):
    path = write_notebook(tmp_path / "notebooks" / "00_a.ipynb", "1")
    before = path.read_bytes()
    options = [command, "--notebooks", str(path.parent), "--build", str(tmp_path / "build")]
    (tmp_path / "build" / command).mkdir(parents=True)
    with FileLock(tmp_path / "build" / command / ".lock"):  # as the first holds it
        assert main(options) == 1
    assert f"Another run is writing into {tmp_path / 'build' / command}" in capfd.readouterr().err
    assert path.read_bytes() == before
    assert not list((tmp_path / "build" / command).glob("*.ipynb"))


def test_a_file_in_place_of_the_build_folder_gives_one_clear_line(tmp_path, write_notebook, capfd):
    path = write_notebook(tmp_path / "notebooks" / "00_a.ipynb", "1")
    (tmp_path / "file").write_text("")
    for command in ("run", "execute"):
        options = ["--notebooks", str(path.parent), "--build", str(tmp_path / "file")]
        assert main([command, *options]) == 1
        (line,) = [line for line in capfd.readouterr().err.splitlines() if "/file" in line]
        assert re.search(r"(File exists|Not a directory): .*/file.*another folder with --build", line)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_gives_one_clear_line(tmp_path, write_notebook, capfd):
    path = write_notebook(tmp_path / "notebooks" / "00_a.ipynb", "1")
    (tmp_path / "build" / "run").mkdir(parents=True)
    (tmp_path / "build" / "run" / path.name).symlink_to("/dev/full")
    assert run(tmp_path) == 1
    said = capfd.readouterr().err
    assert "No space left on device" in said
    assert "another folder with --build" in said
    assert "Traceback" not in said


def test_what_make_calls_is_there_without_make_and_an_unsuccessful_tool_ends_it(tmp_path, capfd, monkeypatch):
    assert main(["test", "--version"]) == 0
    assert "pytest" in "".join(capfd.readouterr())
    monkeypatch.chdir(tmp_path)  # nothing to check: ruff is content, the street is not there
    (tmp_path / "wrong.py").write_text("import os\n")
    assert main(["lint"]) != 0
    assert "F401" in capfd.readouterr().out


CLOSES_SLOWLY = """
import signal, time
signal.signal(signal.SIGINT, lambda *_: (time.sleep(1), print("closed"), exit(3)))
print("open", flush=True)
time.sleep(60)
"""
TOOL = "import sys; from hgsr_lite import __main__ as house; house._TOOLS['lab'] = ('', ['-c', sys.argv[1]])"


def test_ctrl_c_lets_the_lab_ask_and_close_by_itself():
    command = [sys.executable, "-c", f"{TOOL}; sys.exit(house.main(['lab']))", CLOSES_SLOWLY]
    house = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert house.stdout.readline() == "open\n"
    os.killpg(house.pid, signal.SIGINT)  # as a terminal does: to the command and to what it called
    said, complained = house.communicate(timeout=60)
    assert (house.returncode, said, complained) == (3, "closed\n", "")


def test_the_lab_opens_without_waiting_for_pytorch():
    code = "import sys, hgsr_lite.__main__ as house; house._parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
