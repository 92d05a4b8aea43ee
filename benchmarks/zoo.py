"""Cut the networks that nobody here wrote: torchvision's zoo and thirty of timm's, with channels killed.

    python -m benchmarks.zoo [--limit SECONDS] [--only PART ...] [--resume]

Every network has random weights and ten classes. Of each four neighbouring channels one, at random, dies:
all layers with the same number of channels lose the same ones, rows and columns of weights alike, so that a
channel that several layers write dies in all of them. `compact(exact_only=True)` then runs in a process
with a time limit, and the smaller network is compared here, in float64, on images that `compact` never saw,
of the example's size and of another. Writes `benchmarks/results/zoo.csv`, a row a network.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import re
import time
import warnings
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import timm
import torch
import torchvision
from torch import Tensor, nn
from tqdm import tqdm

from hgsr_lite.coupling import tensors
from hgsr_lite.groups import Layout, kernel_stack
from hgsr_lite.removal import compact
from hgsr_lite.removal.proof import PROOF_LIMIT, OutputChange
from hgsr_lite.removal.report import CompactReport

TABLE = Path(__file__).parent / "results" / "zoo.csv"
CLASSES = 10
LARGEST = 150_000_000
"""Networks with more parameters are not tried: larger copies of others, in float64 several times over."""

COLUMNS = [
    *("network", "outcome", "share of dead channels removed", "million parameters", "parameters kept"),
    *("largest change", "other size", "proved on", "seconds", "why"),
]

TIMM = [
    "dla34",
    "convnext_atto",
    "res2net50_26w_4s",
    "edgenext_xx_small",
    "efficientvit_b0",
    "efficientvit_m0",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "ghostnet_100",
    "resnetv2_50",
    "cspresnet50",
    "rexnet_100",
    "mobilenetv3_small_100",
    "tf_efficientnet_b0",
    "mixnet_s",
    "hrnet_w18_small",
    "dpn68",
    "selecsls42b",
    "skresnet18",
    "resnest14d",
    "seresnet50",
    "regnety_002",
    "repvgg_a0",
    "ese_vovnet19b_dw",
    "nf_resnet26",
    "xception41",
    "inception_v4",
    "poolformer_s12",
    "mixer_s32_224",
    "deit_tiny_patch16_224",
    "levit_128s",
    "fastvit_t8",
    "mobileone_s0",
    "ecaresnet26t",
]
DETECTION = ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"]
SEGMENTATION = ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50"]
SIZES = {
    **dict.fromkeys(("inception_v3", "inception_v4"), 96),
    **dict.fromkeys(
        ("maxvit_t", "mixer_s32_224", "deit_tiny_patch16_224", "efficientvit_m0", "levit_128s"), 224
    ),
    **dict.fromkeys(DETECTION, 64),
}
"""Side of the images, where 64 will not do; vision transformers have a size of their own."""


def zoo() -> dict[str, Callable[[], nn.Module]]:
    """Every network by its library and name."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        found[f"torchvision {name}"] = lambda name=name: _torchvision(name)
    for name in DETECTION:
        found[f"torchvision {name}"] = lambda name=name: _torchvision(name, weights_backbone=None)
        found[f"torchvision {name}, backbone"] = lambda name=name: (
            _torchvision(name, weights_backbone=None).backbone
        )
    for name in SEGMENTATION:
        found[f"torchvision {name}"] = lambda name=name: _torchvision(name, weights_backbone=None)
    for name in TIMM:
        found[f"timm {name}"] = lambda name=name: timm.create_model(name, num_classes=CLASSES)
    return found


def _torchvision(name: str, **more: object) -> nn.Module:
    if name in ("googlenet", "inception_v3"):
        more["init_weights"] = False  # its own start takes minutes
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **more)


def side_of(name: str) -> int:
    """The side of the square images for a network."""
    short = name.split()[1].rstrip(",")
    return SIZES.get(short, 224 if short.startswith("vit_") else 64)


def randomise_(model: nn.Module, generator: torch.Generator) -> None:
    """Statistics and affine parameters as after training, so that a dead filter leaves a constant behind."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            if module.weight is not None:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.uniform_(-0.5, 0.5, generator=generator)


def dead_of(count: int) -> Tensor:
    """Which of so many channels die: one, at random, of every four."""
    generator = torch.Generator().manual_seed(count)
    dead = torch.zeros(count, dtype=torch.bool)
    firsts = torch.arange(0, max(count - 3, 0), 4)
    dead[firsts + torch.randint(4, firsts.shape, generator=generator)] = True
    return dead


@torch.no_grad()
def kill_(model: nn.Module) -> dict[str, Tensor]:
    """Kill rows and columns of every layer's weight, in place; return the dead rows of each layer."""
    dead: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) and "weight" in module._parameters:
            stack = kernel_stack(module.weight.data, Layout.of(module))
            groups, rows, columns = stack.shape[:3]
            dead[name] = dead_of(groups * rows) if groups * rows != CLASSES else torch.zeros(CLASSES).bool()
            stack[dead[name].view(groups, rows)] = 0
            stack.transpose(1, 2)[dead_of(groups * columns).view(groups, columns)] = 0
    return dead


def gone(report: CompactReport, model: nn.Module, dead: dict[str, Tensor]) -> int:
    """How many of the dead rows are no longer in the smaller network."""
    found = 0
    for name, rows in dead.items():
        weight = model.get_submodule(name).weight
        row = 1 if Layout.of(model.get_submodule(name)).transposed else 0
        if row == 0:
            left = report.places[f"{name}.weight"].flatten() // (weight.numel() // len(weight))
            alive = torch.zeros(len(weight), dtype=torch.bool)
            alive[left.unique()] = True
            found += int((rows & ~alive).sum())
    return found


@torch.no_grad()
def change(model: nn.Module, small: nn.Module, shape: tuple[int, ...], seed: int) -> float | None:
    """The largest change of output in float64, relative to the largest output; None where the model fails."""
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model, small = (copy.deepcopy(one).eval() for one in (model, small))
    try:
        expected = tensors(model(images))
    except Exception:  # the network's own: it takes one size only
        return None
    return OutputChange.between(expected, tensors(small(images))).relative


def measure(name: str) -> dict[str, object]:
    """One row of the table."""
    torch.manual_seed(zlib.crc32(name.encode()))
    model = zoo()[name]()
    parameters = sum(p.numel() for p in model.parameters())
    if parameters > LARGEST:
        return {"outcome": "not tried", "why": f"{parameters:,} parameters"}
    randomise_(model.double(), torch.Generator().manual_seed(0))
    dead = kill_(model)
    side, start = side_of(name), time.perf_counter()
    try:
        small, report = compact(
            model, torch.randn(2, 3, side, side).double(), exact_only=True, repeats=0, progress=False
        )
    except (ValueError, TypeError) as error:
        return {"outcome": "refused", "why": str(error), "seconds": time.perf_counter() - start}
    seconds, removed = time.perf_counter() - start, gone(report, model, dead)
    same = [
        change(model, small, shape, at)
        for at, shape in enumerate([(1, 3, side, side), (2, 3, side + 32, side)], 1)
    ]
    worst = max(value for value in same if value is not None)
    outcome = "removed" if report.after.parameters < report.before.parameters else "left alone"
    total = sum(int(rows.sum()) for rows in dead.values())
    reasons = pd.Series([re.sub(r"[-.0-9e]*\d", "N", why) for why in report.fixed.values()], dtype=object)
    return {
        "outcome": outcome if worst <= PROOF_LIMIT else "WRONG",
        "share of dead channels removed": removed / total,
        "million parameters": report.before.parameters / 1e6,
        "parameters kept": report.after.parameters / report.before.parameters,
        "largest change": worst,
        "other size": "compared" if same[1] is not None else "not taken",
        "proved on": "; ".join(report.proof),
        "seconds": seconds,
        "why": "; ".join(f"{count} sets: {why}" for why, count in reasons.value_counts().items()),
    }


def _work(name: str, to: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        to.send(measure(name))
    except BaseException as error:  # whatever it is, the table names it
        to.send({"outcome": "CRASHED", "why": f"{type(error).__name__}: {error}"})


def row(name: str, limit: float) -> dict[str, object]:
    """Measure one network in a process of its own, which ends at the limit."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, theirs))
    process.start()
    theirs.close()
    found: dict[str, object] = {"outcome": "OUT OF TIME", "seconds": limit}
    if ours.poll(limit):
        try:
            found = ours.recv()
        except EOFError:
            found = {"outcome": "CRASHED", "why": "the process ended"}
    process.terminate()
    process.join()
    return {"network": name, **found}


def main() -> None:
    """Run the zoo and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=150.0, help="seconds for a network")
    parser.add_argument("--only", nargs="*", help="measure only networks whose name has such a part again")
    parser.add_argument("--resume", action="store_true", help="leave the rows that the table has")
    parser.add_argument("--table", type=Path, default=TABLE)
    given = parser.parse_args()
    names = list(zoo())
    known = pd.read_csv(given.table).to_dict("records") if given.table.exists() else []
    rows = {known_row["network"]: known_row for known_row in known}
    given.table.parent.mkdir(parents=True, exist_ok=True)
    for name in tqdm(names, unit="network"):
        wanted = not given.only or any(part in name for part in given.only)
        if wanted and not (given.resume and name in rows):
            rows[name] = row(name, given.limit)
            table = pd.DataFrame([rows[name] for name in names if name in rows], columns=COLUMNS)
            table.to_csv(given.table, index=False, float_format="%.4g")
    print(pd.DataFrame(rows.values()).outcome.value_counts().to_string())


if __name__ == "__main__":
    main()
