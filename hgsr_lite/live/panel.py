"""The playground: every choice of the series on one panel, retrained while you watch.

Training runs in a thread of its own, so that neither the page nor the kernel waits for it, and shows its
progress from there, as ipywidgets' manual does it ("Asynchronous widgets"). Handing that work to the
kernel's event loop instead can keep a press on Stop waiting until the run is over: newer kernels answer
controls on a loop of their own. Uses only what ipywidgets 7.7 and 8.1 share.
"""

from __future__ import annotations

import threading
import time
from html import escape
from typing import Any

import ipywidgets as widgets
import pandas as pd

from hgsr_lite.data import Data
from hgsr_lite.groups import GROUPINGS, weight_layers
from hgsr_lite.live.workbench import Choice, Trained, Workbench, before_and_after, compare
from hgsr_lite.table import PENALTIES
from hgsr_lite.training import History

FRACTION = 1.0
"""Share of the loss's gradient that the calibrate button gives to the penalty's at the start."""
_PAUSE = 0.2  # seconds between two signs of progress: more would only fill the page's queue
_WIDE = {"style": {"description_width": "110px"}, "layout": {"width": "380px"}}


def playground(
    data: Data, model_name: str = "digits_cnn", choice: Choice | None = None, **budget: Any
) -> Playground:
    """Train a network without and with a penalty, and return the panel that trains it again.

    `budget` are the further arguments of `Workbench`: epochs, seed, lr, batch_size. Both first runs are made
    here, so the panel comes up with a picture. Raises `ValueError` for an unknown model or penalty.

    >>> from hgsr_lite.data import load_data
    >>> panel = playground(load_data("digits", device="cpu", limit=100), epochs=1)
    >>> panel.strength.value = 1e-3
    >>> panel.train_now().choice.strength
    0.001
    """
    return Playground(Workbench(data, model_name, **budget), choice or Choice())


class Playground(widgets.VBox):
    """The panel. `dense` and `trained` are the two runs shown, `log` a table of all runs so far.

    Train starts a run with the settings shown; Stop ends it within a batch and shows how far it came.
    Tolerance and layer need no new run.
    """

    def __init__(self, workbench: Workbench, choice: Choice) -> None:
        self.workbench = workbench
        self.dense = workbench.train()
        self.trained = workbench.train(choice)
        self._stop = threading.Event()
        self._drawing = threading.Lock()  # matplotlib draws one figure at a time
        self._worker: threading.Thread | None = None
        self._drawn = 0
        self._rows: list[dict[str, Any]] = []
        self._make_controls(choice)
        super().__init__(self._arranged())
        self._show_end(self.trained)

    def _make_controls(self, choice: Choice) -> None:
        titles = [(f"{key}: {spec.title}", key) for key, spec in PENALTIES.items()]
        slow = {"continuous_update": False, **_WIDE}
        self.penalty = widgets.Dropdown(options=titles, value=choice.penalty, description="penalty", **_WIDE)
        self.grouping = widgets.Dropdown(
            options=[(f"{name}-wise", name) for name in GROUPINGS],
            value=choice.grouping,
            description="grouping",
            **_WIDE,
        )
        self.strength = widgets.FloatLogSlider(
            value=choice.strength,
            min=-7,
            max=0,
            step=0.1,
            readout_format=".1e",
            description="strength",
            **slow,
        )
        self.l1_mix = widgets.FloatSlider(
            value=choice.l1_mix, min=0, max=1, step=0.1, description="l1 mix", **slow
        )
        self.warmup = widgets.FloatSlider(
            value=choice.warmup, min=0, max=1, step=0.1, description="warm-up", **slow
        )
        self.proximal = widgets.Checkbox(value=choice.proximal, description="proximal step", **_WIDE)
        self.tolerance = widgets.FloatLogSlider(
            value=1e-3, min=-6, max=0, step=0.5, readout_format=".1e", description="tolerance", **slow
        )
        self.relative = widgets.Checkbox(value=False, description="tolerance x layer's rms", **_WIDE)
        layers = [layer.name for layer in weight_layers(self.dense.model)]
        self.layer = widgets.Dropdown(
            options=layers, value=layers[len(layers) // 2], description="layer shown", **_WIDE
        )
        self.train_button = widgets.Button(description="Train", button_style="primary", icon="play")
        self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.calibrate_button = widgets.Button(
            description="Calibrate",
            icon="balance-scale",
            tooltip="Set the strength so that penalty and loss pull equally hard at the start",
        )
        self.progress = widgets.FloatProgress(min=0, max=1, layout={"width": "240px"})
        self.status, self.table = widgets.HTML(), widgets.HTML()
        # A height of its own keeps the page from jumping under the reader's hand while a new map is loaded.
        keep = {"height": "306px", "width": "660px", "max_width": "100%", "object_fit": "contain"}
        self.picture = widgets.Image(format="png", layout=keep)
        self.train_button.on_click(lambda _: self.train())
        self.stop_button.on_click(lambda _: self._stop.set())
        self.calibrate_button.on_click(lambda _: self.calibrate())
        for control in (self.tolerance, self.relative, self.layer):
            control.observe(lambda _: self._show_result(), names="value")

    def _arranged(self) -> list[widgets.Widget]:
        training = [self.penalty, self.grouping, self.strength, self.l1_mix, self.warmup]
        judging = [self.proximal, self.tolerance, self.relative, self.layer]
        buttons = [self.train_button, self.stop_button, self.calibrate_button, self.progress]
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        return [
            widgets.HBox([widgets.VBox(training), widgets.VBox(judging)], layout=wrap),
            widgets.HBox(buttons, layout=wrap),
            self.status,
            self.picture,
            self.table,
        ]

    @property
    def choice(self) -> Choice:
        """The settings that the controls show."""
        return Choice(
            self.penalty.value,
            self.grouping.value,
            self.strength.value,
            self.l1_mix.value,
            self.warmup.value,
            self.proximal.value,
        )

    @property
    def log(self) -> pd.DataFrame:
        """One row a run: its settings and its figures at the tolerance of that moment."""
        return pd.DataFrame(self._rows)

    def calibrate(self) -> None:
        """Set the strength slider by `Workbench.calibrated`."""
        self.strength.value = self.workbench.calibrated(self.choice, FRACTION).strength
        self._say(f"strength {self.strength.value:.1e}: at the start the penalty pulls as hard as the loss.")

    def train_now(self) -> Trained:
        """Train with the settings shown, here and now, and return the run."""
        self._show_end(self.workbench.train(self.choice))
        return self.trained

    def train(self) -> None:
        """Start a run with the settings shown, in a thread of its own; nothing if one is under way."""
        if self.busy:
            return
        self._stop.clear()
        self._set_busy(True)
        self._worker = threading.Thread(target=self._work, args=(self.choice,), daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """Ask the run under way to end, and wait until it has."""
        self._stop.set()
        if self._worker is not None:
            self._worker.join()

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self.train_button.disabled

    def _work(self, choice: Choice) -> None:
        shown = 0.0

        def watch(share: float, history: History) -> bool:
            nonlocal shown
            if time.monotonic() - shown > _PAUSE:
                shown = time.monotonic()
                self._show_progress(share, history)
            return self._stop.is_set()

        try:
            self._show_end(self.workbench.train(choice, watch))
        except Exception as error:  # whatever went wrong, the buttons must work again
            self._set_busy(False)
            self._say(str(error))

    def _show_progress(self, share: float, history: History) -> None:
        self.progress.value = share
        if history.records:
            last = history.records[-1]
            self._say(
                f"epoch {last['epoch']} of {self.workbench.epochs}: validation accuracy "
                f"{last['validation accuracy']:.1%}, {last['below tolerance']:.1%} of the weights below 1e-3"
            )
            if last["epoch"] > self._drawn:
                self._draw(history)
                self._drawn = last["epoch"]

    def _show_end(self, trained: Trained) -> None:
        self.trained = trained
        self.progress.value = 1.0 if "finished" in trained.ending else self.progress.value
        self._say(trained.ending)
        figures = self._show_result()
        self._rows.append(
            {**vars(trained.choice), "tolerance": self.tolerance.value, **figures, "ending": trained.ending}
        )
        self._set_busy(False)

    def _show_result(self) -> dict[str, str]:
        runs = {"before: dense": self.dense, "after: your choice": self.trained}
        table = compare(runs, self.workbench.data, self.tolerance.value, self.relative.value)
        self.table.value = table.to_html(border=0, col_space=130)
        self._draw(self.trained.history)
        return table.iloc[:, -1].to_dict()

    def _draw(self, history: History) -> None:
        with self._drawing:
            self.picture.value = before_and_after(self.dense.history, history, self.layer.value)

    def _set_busy(self, busy: bool) -> None:
        self.train_button.disabled = self.calibrate_button.disabled = busy
        self.stop_button.disabled = not busy
        if busy:
            self.progress.value, self._drawn = 0.0, 0

    def _say(self, text: str) -> None:
        self.status.value = escape(text)
