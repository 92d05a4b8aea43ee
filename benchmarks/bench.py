"""Time penalties, proximal steps, training, the input pipeline, dead kernels and live figures, side by side.

    python -m hgsr_lite bench [--quick]

Every comparison is interleaved: one round times each variant once, rounds repeat, medians are compared.
Prints a table and writes `benchmarks/results/<device>/`: JSON, a plot, and what `skipping`, `worth` and
`live` write.
README.md beside this file says what is measured against what, and why that is fair.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from tqdm import tqdm

import hgsr_lite as hg
from benchmarks import layers, skipping, worth
from benchmarks.measurements import (
    DEVICE,
    GROUP_PENALTIES,
    MANY,
    NETWORKS,
    Row,
    epoch_rows,
    many_rows,
    penalty_rows,
    pipeline_rows,
    size_rows,
    step_rows,
)
from benchmarks.options import options_of


def measure(quick: bool) -> pd.DataFrame:
    """Every row of the benchmark; `quick` takes fewer penalties, sizes and rounds."""
    keys = ("hsq_gl12", "gl") if quick else GROUP_PENALTIES
    networks = list(NETWORKS)[:3] if quick else list(NETWORKS)
    jobs: list[tuple[Callable[..., list[Row]], tuple]] = [
        (penalty_rows, (network, key, grouping, 5 if quick else (7 if "torchvision" in network else 25)))
        for network in networks
        for key in keys
        for grouping in hg.GROUPINGS
    ]
    jobs += [
        (step_rows, (10 if quick else 60,)),
        (pipeline_rows, (1280 if quick else 12800, 3 if quick else 5)),
        (epoch_rows, (512 if quick else 5120, 2 if quick else 5)),
        (many_rows, (2, 2, 1) if quick else (MANY, 20, 3)),
        (size_rows, ((10**4, 10**5, 10**6) if quick else (10**4, 10**5, 10**6, 10**7, 10**8), 3)),
    ]
    rows = [row for job, arguments in tqdm(jobs, desc="benchmark") for row in job(*arguments)]
    return pd.DataFrame(rows)


def machine() -> dict[str, str]:
    """What the figures belong to."""
    packages = ("torch", "torchvision", "numba", "numpy")
    instructions = torch.backends.cpu.get_cpu_capability()
    return {
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu",
        "processor": f"{platform.machine()}, {instructions}, {torch.get_num_threads()} threads",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def plot_sizes(table: pd.DataFrame, path: Path) -> None:
    """Cost against size on two logarithmic axes; a straight line of slope 1 is linear cost."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sizes = table[table["what"] == "size"]
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    axes.loglog(sizes["weights"], sizes["ms"], marker="o", label="measured (median)")
    last = sizes.iloc[-1]
    axes.loglog(sizes["weights"], last["ms"] * sizes["weights"] / last["weights"], "--", label="linear")
    axes.set(xlabel="weights", ylabel="time of one add_gradient_ (ms)", title="hsq_gl12, feature-wise")
    axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One line a network and variant, over all penalties: times as fast as textbook, times the floor."""
    keys = ["network", "penalty", "grouping"]
    penalties = table[table["what"] == "penalty"]
    floors = penalties[penalties["variant"] == "floor"].set_index(keys)["ms"].rename("floor")
    penalties = penalties.join(floors, on=keys)
    penalties["times the floor"] = penalties["ms"] / penalties["floor"]
    columns = ["times textbook autograd", "times the floor"]
    figures = penalties.groupby(["network", "variant"], sort=False)[columns].agg(["min", "median", "max"])
    return figures.round(2).reset_index()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its results."""
    options = options_of(
        "hgsr_lite bench", __doc__, "fewer penalties, sizes and rounds", arguments, DEVICE.type
    )
    about = machine()
    table = measure(options.quick)
    print("Over penalties and groupings:")
    print(summary(table).to_string(index=False))
    others = table[table["what"] != "penalty"].dropna(axis=1, how="all")
    print(others.drop(columns=["against"]).round(3).to_string(index=False, na_rep=""))
    record = {
        "machine": about,
        "quick": options.quick,
        "rows": json.loads(table.to_json(orient="records")),
    }
    (options.out / "bench.json").write_text(json.dumps(record, indent=1) + "\n")
    plot_sizes(table, options.out / "size.png")
    if DEVICE.type == "cpu":  # dead kernels are skipped there only, and the figures need no GPU
        same = ["--out", str(options.out), *(["--quick"] if options.quick else [])]
        layers.main(same)
        skipping.main(same)
        worth.main(same)
        _time_figures(same)
    return 0


def _time_figures(arguments: Sequence[str]) -> None:
    """Where there is a browser and what drives it: readers who only run notebooks have neither."""
    if importlib.util.find_spec("playwright") is None:
        print("no live figure was timed: pip install -r requirements-dev.txt")
        return
    from benchmarks import live

    live.main(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
