"""Pictures of norms tell the truth: their values, balls, fields and landings are those of the penalties."""

from __future__ import annotations

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from hgsr_lite import PENALTIES, Penalty, figures
from hgsr_lite.figures.norms import PLANES
from hgsr_lite.live import norms as live_norms

POINTS = torch.tensor([[1.5, -0.4], [-0.3, 0.3], [0.0, 2.0], [0.7, 0.0]], dtype=torch.float64)
SHAPES = {"same group": (2, 1), "two groups": (1, 2)}
PLAIN = ["l2", "l1", "gl", "es", "gl12"]
every_plane = pytest.mark.parametrize("plane", PLANES)
every_penalty = pytest.mark.parametrize("key", PENALTIES)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@every_plane
@every_penalty
def test_values_are_the_penaltys_point_by_point(key: str, plane: str):
    wanted = [Penalty(key).value(point.view(SHAPES[plane])) for point in POINTS]
    assert torch.allclose(figures.values(key, POINTS, plane), torch.stack(wanted))


@every_plane
@every_penalty
def test_arrows_are_the_negative_gradient_point_by_point(key: str, plane: str):
    wanted = [-Penalty(key).gradient(point.view(SHAPES[plane])).flatten() for point in POINTS]
    assert torch.allclose(figures.steepest_descent(key, POINTS, plane), torch.stack(wanted))


@every_plane
@every_penalty
def test_steps_are_the_proximal_operator_point_by_point(key: str, plane: str):
    wanted = [Penalty(key).prox(point.view(SHAPES[plane]), 0.2).flatten() for point in POINTS]
    assert torch.allclose(figures.proximal_step(key, POINTS, 0.2, plane), torch.stack(wanted), atol=1e-6)


@every_penalty
def test_space_adds_a_second_group(key: str):
    points = torch.cat([POINTS, torch.full((4, 1), 0.6, dtype=torch.float64)], 1)
    # In the layer [[a, c], [b, 0]] the columns are the groups {a, b} and {c}.
    layers = [torch.stack([p[[0, 2]], torch.stack([p[1], p.new_zeros(())])]) for p in points]
    wanted = torch.stack([Penalty(key).value(layer) for layer in layers])
    assert torch.allclose(figures.space_values(key, points), wanted)


@every_plane
@every_penalty
def test_every_point_of_a_drawn_ball_has_penalty_one(key: str, plane: str):
    figure = figures.unit_balls([key])
    axes = figure.axes[list(PLANES).index(plane)]
    curve = torch.as_tensor(axes.patches[0].get_xy())
    assert torch.allclose(figures.values(key, curve, plane), torch.ones(len(curve), dtype=torch.float64))


@pytest.mark.parametrize(
    ("plane", "with_corners"), [("same group", ["l1", "es", "gl12"]), ("two groups", ["l1", "gl", "gl12"])]
)
def test_corners_are_marked_where_the_ball_has_them(plane: str, with_corners: list[str]):
    axes = figures.unit_balls(PLAIN).axes[len(PLAIN) * list(PLANES).index(plane) :]
    marked = [
        key
        for key, one in zip(PLAIN, axes, strict=False)
        if any(line.get_marker() == "o" for line in one.lines)
    ]
    assert marked == with_corners


@pytest.mark.parametrize(
    ("key", "plane", "wanted"),
    [
        ("l2", "same group", {0}),
        ("gl", "same group", {0, 3}),
        ("gl", "two groups", {0, 1, 2, 3}),
        ("es", "same group", {0, 1, 2}),
        ("es", "two groups", {0}),
        ("gl12", "two groups", {0, 1, 2, 3}),
    ],
)
def test_landings_show_what_a_norm_can_set_to_zero(key: str, plane: str, wanted: set[int]):
    # An even count: no start lies on an axis, where a kernel is zero to begin with.
    reached = figures.landings(key, figures.square(2.0, 40), 0.5, plane)
    assert set(reached.unique().tolist()) == wanted


def test_every_figure_draws():
    layer = torch.tensor([[[3.0, -4.0], [0.0, 0.0]], [[1.0, 0.0], [2.0, -2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    drawn = [
        figures.group_sizes(layer),
        figures.unit_balls(PLAIN[:2], catchment=True),
        figures.unit_balls_in_space(PLAIN[:2], step_count=9),
        figures.level_sets(PLAIN[:2], "two groups"),
        figures.landing_maps(PLAIN[:2], 0.5, step_count=11),
        figures.proximal_curves({"half": lambda z: z / 2}),
    ]
    for figure in drawn:
        figure.canvas.draw()
        assert all(axes.get_xlabel() for axes in figure.axes if axes.get_label() != "<colorbar>")


def test_frames_count_the_groups():
    titles = [axes.get_title() for axes in figures.group_sizes(torch.ones(3, 2, 2)).axes]
    assert titles == ["6 kernels", "2 feature-wise groups", "3 neuron-wise groups"]


def test_an_unknown_plane_is_refused_in_one_line():
    with pytest.raises(ValueError, match="unknown plane 'same': choose one of same group, two groups"):
        figures.values("l1", POINTS, "same")


@every_plane
@pytest.mark.parametrize("key", ["l2", "es", "gl12"])
def test_the_explorer_draws_every_setting_also_at_zero(key: str, plane: str):
    for first, second in [(0.0, 0.0), (-2.0, 2.0)]:
        figure = live_norms.explorer_figure(key, plane, first, second, 0.3)
        figure.canvas.draw()
        plt.close(figure)
