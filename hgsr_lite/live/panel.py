"""The playground: every choice of the series on one panel, retrained while you watch.

Training runs in a thread of its own, so that neither the page nor the kernel waits for it, and shows its
progress from there, as ipywidgets' manual does it ("Asynchronous widgets"). Handing that work to the
kernel's event loop instead can keep a press on Stop waiting until the run is over: newer kernels answer
controls on a loop of their own.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import Any

import pandas as pd
import traitlets
from matplotlib.figure import Figure

from hgsr_lite.data import Data
from hgsr_lite.figures import kernel_map
from hgsr_lite.groups import GROUPINGS
from hgsr_lite.live.figure import PENALTY_ROWS, LiveFigure
from hgsr_lite.live.maps import MAP_COLORS, layer_places, plain_record
from hgsr_lite.live.runs import CONTROLS, controls_of, ending, newest_norms, run_in_table
from hgsr_lite.live.workbench import Workbench, metrics_of, newest_maps
from hgsr_lite.table import PENALTIES
from hgsr_lite.training import History, Penalised, Trained

FRACTION = 1.0
"""Share of the loss's gradient that the calibrate button gives to the penalty's at the start."""
_LOG = logging.getLogger(__name__)
_PAUSE = 0.2  # seconds between two signs of progress: more would only fill the page's queue


def playground(
    data: Data,
    model_name: str = "digits_cnn",
    method: Penalised | None = None,
    proximal: bool = False,
    **budget: Any,
) -> Playground:
    """Train a network without and with a penalty, and return the panel that trains it again.

    `method` is the penalty shown first, `proximal` as in `Workbench.train`. `budget` holds what else
    `Workbench` takes: epochs, seed, lr, batch_size. Both first runs are made here, so the panel comes up with
    a picture. Raises `ValueError` for an unknown model.

    >>> from hgsr_lite.data import load_data
    >>> panel = playground(load_data("digits", device="cpu", limit=100), epochs=1)
    >>> panel.strength = 1e-3
    >>> panel.train_now().recipe.method.strength
    0.001
    """
    return Playground(Workbench(data, model_name, **budget), method or Penalised(strength=1e-4), proximal)


class Playground(LiveFigure):
    """The panel. `dense` and `trained` are the first run and the last, `log` a table of all runs so far.

    The settings are traits, named as in `Penalised`. `train` starts a run with them in the background;
    `stop` ends it within a batch. `tolerance` and `relative` judge the dense network and the last one anew,
    without a run.
    """

    module = "playground.js"
    rows = traitlets.List(PENALTY_ROWS).tag(sync=True)
    colors = traitlets.Bytes(MAP_COLORS).tag(sync=True)
    subject = traitlets.Unicode().tag(sync=True)
    layers = traitlets.List().tag(sync=True)
    epochs = traitlets.Int().tag(sync=True)
    penalty = traitlets.Enum(list(PENALTIES)).tag(sync=True)
    grouping = traitlets.Enum(list(GROUPINGS)).tag(sync=True)
    strength = traitlets.Float(min=0.0).tag(sync=True)
    l1_mix = traitlets.Float(min=0.0, max=1.0).tag(sync=True)
    warmup = traitlets.Float(min=0.0, max=1.0).tag(sync=True)
    proximal = traitlets.Bool().tag(sync=True)
    tolerance = traitlets.Float(1e-3, min=0.0).tag(sync=True)
    relative = traitlets.Bool(False).tag(sync=True)
    progress = traitlets.Dict().tag(sync=True)
    records = traitlets.List().tag(sync=True)
    norms = traitlets.Bytes().tag(sync=True)
    stale = traitlets.Bool(False).tag(sync=True)
    runs = traitlets.List().tag(sync=True)

    def __init__(self, workbench: Workbench, method: Penalised, proximal: bool = False) -> None:
        self.workbench, self._layers = workbench, method.layers
        method = workbench.calibrated(method)
        self.dense, self.trained = workbench.train(), workbench.train(method, proximal=proximal)
        self._stop, self._hold, self._one_epoch = threading.Event(), threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._worker: threading.Thread | None = None
        self._started = self._told = self._held = 0.0
        super().__init__(
            subject=f"{workbench.model_name} on {workbench.data.name}",
            layers=layer_places(self.dense.model),
            epochs=workbench.epochs,
            progress=_idle("Ready. The table shows the first two runs."),
            **controls_of(method, proximal),
        )
        self._add(self.dense)
        self._add(self.trained)
        self._show(self.trained.history)
        self.observe(lambda _: self._judge_anew(), names=["tolerance", "relative"])
        self.on_msg(lambda _, content, buffers: self._answer(content))

    @property
    def controls(self) -> dict[str, Any]:
        """How the controls stand."""
        return {name: getattr(self, name) for name in CONTROLS}

    @property
    def method(self) -> Penalised:
        """The penalty that the controls show; `ValueError` for a strength of 0."""
        return replace(self._penalised(), strength=self.strength, fraction=None)

    def _penalised(self) -> Penalised:
        """The same without its strength: one that pulls as hard as the loss."""
        chosen = {"l1_mix": self.l1_mix, "warmup": self.warmup, "layers": self._layers}
        return Penalised(self.penalty, self.grouping, fraction=FRACTION, **chosen)

    @property
    def log(self) -> pd.DataFrame:
        """One row a run: its settings and its metrics at the tolerance of that moment."""
        settings = (*CONTROLS, "tolerance")
        shown = [
            {**{name: run[name] for name in settings}, **run["metrics"], "ending": run["ending"]}
            for run in self.runs[1:]
        ]
        return pd.DataFrame(shown)

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self.progress["phase"] != "idle"

    def calibrate(self) -> None:
        """Set the strength by `Workbench.calibrated`."""
        self.strength = float(f"{self.workbench.calibrated(self._penalised()).strength:.3g}")
        self.progress = _idle(
            f"Strength {self.strength:.1e}: at the start the penalty pulls as hard as the loss."
        )

    def train_now(self) -> Trained:
        """Train with the settings shown, here and now, and return the run."""
        self._show_end(self.workbench.train(self.method, proximal=self.proximal))
        return self.trained

    def train(self, one_epoch: bool = False) -> None:
        """Start a run with the settings shown, in a thread of its own; nothing if one is under way."""
        with self._starting:
            if self.busy:
                return
            method = self.method
            self._stop.clear()
            self._hold.clear()
            self._one_epoch.set() if one_epoch else self._one_epoch.clear()
            self._started, self._told, self._held = time.monotonic(), 0.0, 0.0
            self.stale = True
            self._tell("running", 0.0)
            self._worker = threading.Thread(target=self._work, args=(method, self.proximal), daemon=True)
            self._worker.start()

    def pause(self) -> None:
        """Hold the run under way after its batch, or let it go on."""
        self._one_epoch.clear()
        self._hold.clear() if self._hold.is_set() else self._hold.set()

    def step(self) -> None:
        """Train for one epoch, then hold; a run that is held goes on for one epoch."""
        if self.busy:
            self._one_epoch.set()
            self._hold.clear()
        else:
            self.train(one_epoch=True)

    def stop(self) -> None:
        """Ask the run under way to end, and wait until it has."""
        self._stop.set()
        if self._worker is not None:
            self._worker.join()

    def reset(self) -> None:
        """Stop, and forget every run but the dense one."""
        self.stop()
        self.runs = self.runs[:1]
        self._show(self.dense.history)
        self.progress = _idle("Ready. The dense run stays for comparison.")

    def picture(self) -> Figure:
        """The kernels of the middle layer in the dense and in the last network."""
        layer = self.layers[len(self.layers) // 2]["name"]
        return kernel_map(
            newest_maps(self.dense.history, self.trained.history, layer), title=f"layer {layer}"
        )

    def alt(self) -> str:
        """What `picture` shows, in words."""
        return (
            "Still picture of the playground: kernel maps of the middle layer, dense network on the left, "
            f"network trained with {self.trained.recipe.method.penalty} on the right, on one "
            "logarithmic scale."
        )

    def _answer(self, content: dict[str, Any]) -> None:
        """Do what a button of the page asks for."""
        actions = {
            "train": self.train,
            "step": self.step,
            "pause": self.pause,
            "stop": self._stop.set,
            "reset": self.reset,
            "calibrate": self.calibrate,
        }
        if not self.busy:
            for name, value in content["settings"].items():
                setattr(self, name, value)
        try:
            actions[content["do"]]()
        except ValueError as error:
            self.progress = _idle(str(error))

    def _work(self, method: Penalised, proximal: bool) -> None:
        try:
            self._show_end(self.workbench.train(method, proximal=proximal, watch=self._watch))
        except ValueError as error:  # settings that cannot be trained, in words
            self.progress = _idle(str(error))
        except Exception as error:  # whatever else went wrong, the buttons must work again
            _LOG.exception("the run in the background failed")
            self.progress = _idle(f"{type(error).__name__}: {error}")

    def _watch(self, share: float, history: History) -> bool:
        """Called after each batch: tell the page, hold while asked to, and say whether to stop."""
        is_new = bool(history.records) and (self.stale or len(history.records) != len(self.records))
        if is_new:
            self._show(history)
            if self._one_epoch.is_set():
                self._hold.set()
        if is_new or time.monotonic() - self._told > _PAUSE:
            self._tell("running", share)
        while self._hold.is_set() and not self._stop.is_set():
            if self.progress["phase"] != "paused":
                self._tell("paused", share)
            self._held += _PAUSE
            time.sleep(_PAUSE)
        return self._stop.is_set()

    def _show(self, history: History) -> None:
        """Send the page a history's records and its newest norms; without records the last run's stay."""
        if self.stale and not history.records:
            return
        self.records = [plain_record(record) for record in history.records]
        self.norms = newest_norms(history)
        self.stale = False

    def _show_end(self, trained: Trained) -> None:
        self.trained = trained
        self._show(trained.history)
        self._add(trained)
        self.progress = {**_idle(ending(trained)), "share": float(trained.finished)}

    def _add(self, trained: Trained) -> None:
        """One more run in the table."""
        self.runs = [
            *self.runs,
            run_in_table(len(self.runs), trained, self._metrics(trained), self.tolerance),
        ]

    def _metrics(self, trained: Trained) -> dict[str, float]:
        return metrics_of(trained, self.workbench.data, self.tolerance, self.relative)

    def _judge_anew(self) -> None:
        """The dense run's metrics and the last one's at the tolerance chosen now; the others keep theirs."""
        if self.busy:
            return
        self.progress = _idle("Judging at the new tolerance …")
        runs = list(self.runs)
        for place, trained in ((0, self.dense), (len(runs) - 1, self.trained)):
            runs[place] = {**runs[place], "tolerance": self.tolerance, "metrics": self._metrics(trained)}
        self.runs = runs
        unit = " times each layer's root mean square" if self.relative else ""
        self.progress = _idle(
            f"The dense run and the last one, judged at tolerance {self.tolerance:g}{unit}."
        )

    def _tell(self, phase: str, share: float) -> None:
        self._told = time.monotonic()
        spent = self._told - self._started - self._held
        self.progress = {
            "phase": phase,
            "share": share,
            "left": spent / share * (1 - share) if share else 0.0,
            "epoch": min(self.epochs, int(share * self.epochs) + 1),
            "epochs": self.epochs,
            "settings": self.progress.get("settings") or self.controls,
            "message": "",
        }


def _idle(message: str) -> dict[str, Any]:
    return {"phase": "idle", "share": 0.0, "message": message}
