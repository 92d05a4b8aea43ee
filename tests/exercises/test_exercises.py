"""For every exercise of the series: the solution passes, the stub is not yet done, usual mistakes are met.

The exercises are read from the notebooks themselves, so a new one is tested as soon as it is written.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest
import torch

import hgsr_lite as hg
from hgsr_lite.series import checks
from tests.exercises.wrong_answers import WRONG

pytestmark = pytest.mark.trains  # one exercise's loop does

mpl.use("Agg")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SERIES = sorted(NOTEBOOKS.glob("[0-9A-Z]*_*.ipynb"))
GRADES = {"warm-up", "practice", "challenge"}


def code_cells(path, tag=None):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [cell for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def exercises(path):
    """Pairs of an exercise's source, stub and check, and the check's name."""
    cells, found = code_cells(path), []
    for place, cell in enumerate(cells):
        if "exercise" in cell.metadata.get("tags", []):
            own = "check_" in cell.source
            source = cell.source if own else cell.source + "\n" + cells[place + 1].source
            found.append((source, re.search(r"^(check_\w+)\(", source, re.M)[1]))
    return found


EXERCISES = [(path, stub, check) for path in SERIES for stub, check in exercises(path)]
by_check = pytest.mark.parametrize(
    ("path", "stub", "check"), EXERCISES, ids=[check for _, _, check in EXERCISES]
)


def run(source, namespace):
    """What a cell prints, run in a namespace that the cells before it have filled."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(source, "<cell>", "exec"), namespace)
    return said.getvalue()


def test_there_are_at_least_24_exercises_in_three_grades_and_no_check_is_used_twice():
    names = [check for _, _, check in EXERCISES]
    assert len(set(names)) == len(names) >= 24
    texts = "\n".join(path.read_text() for path in SERIES)
    grades = re.findall(r"### Exercise [\dAB]+\.\d+ · ([\w-]+)", texts)
    assert len(grades) == len(names)
    assert set(grades) == GRADES


def test_every_check_of_the_package_belongs_to_an_exercise_and_has_wrong_answers():
    offered = {name for name in vars(checks) if name.startswith("check_")}
    assert offered == {check for _, _, check in EXERCISES} == set(WRONG)


@by_check
def test_an_untouched_stub_is_reported_as_not_yet_done(path, stub, check, capsys):
    namespace = {}
    for cell in code_cells(path, "setup"):
        exec(compile(cell.source, "<setup>", "exec"), namespace)
    capsys.readouterr()
    exec(compile(stub, "<stub>", "exec"), namespace)
    assert "not yet done" in capsys.readouterr().out
    assert namespace[check] is getattr(checks, check)


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_every_solution_passes_its_check(path):
    solutions = NOTEBOOKS / "solutions" / path.name
    assert len(code_cells(solutions, "solution")) == len(exercises(path))
    namespace, passed = {}, set()
    for cell in code_cells(solutions):
        said = run(cell.source, namespace)
        checked = re.findall(r"^(check_\w+)\(", cell.source, re.M)
        assert len(re.findall(r": right\.$", said, re.M)) == len(checked), said
        passed |= set(checked)
    assert passed == {check for _, check in exercises(path)}


def verdict(check, answer):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        passed = getattr(checks, check)(answer)
    return passed, said.getvalue()


@pytest.mark.parametrize("check", sorted(WRONG))
def test_the_right_answer_passes_and_each_usual_mistake_gets_its_own_hint(check):
    exercise = getattr(checks, check)
    assert verdict(check, exercise.right)[0]
    for hint, mistake in exercise.mistakes.items():
        passed, said = verdict(check, mistake)
        assert not passed, hint
        assert said.rstrip().endswith(hint)


@pytest.mark.parametrize("check", sorted(WRONG))
def test_a_wrong_answer_that_a_reader_might_write_gets_the_hint_that_fits(check):
    answer, hint = WRONG[check]
    passed, said = verdict(check, answer)
    assert not passed
    assert hint.lower() in said.lower()


def gl12_over(roots):
    """`gl12`, feature-wise, from a function of the channels' l1 norms."""
    return lambda weight: roots(weight.abs().transpose(0, 1).flatten(1).sum(1)).sum()


def test_a_root_that_is_nearly_zero_at_zero_is_not_right():
    for tiny in (1e-12, 1e-16, 1e-20, 1e-24, 1e-30):
        for nearly in (lambda s, tiny=tiny: s.clamp(min=tiny), lambda s, tiny=tiny: s + tiny):
            answer = gl12_over(lambda s, nearly=nearly: nearly(s).sqrt())
            assert not verdict("check_safe_gl12", answer)[0]


def test_a_loop_that_passes_over_empty_channels_is_a_safe_penalty():
    def loop(weight):
        sums = [weight[:, i].abs().sum() for i in range(weight.shape[1])]
        return sum(total.sqrt() for total in sums if total > 0)

    assert verdict("check_safe_gl12", loop)[0]
    assert verdict("check_safe_gl12", lambda weight: loop(weight) + torch.zeros(()))[0]
    assert "no gradient" in verdict("check_safe_gl12", lambda weight: loop(weight.detach()))[1]


def test_checking_leaves_the_readers_random_numbers_alone():
    before = torch.get_rng_state()
    for check in WRONG:
        verdict(check, getattr(checks, check).right)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_a_step_rebounds_at_degree_one_only():
    assert "right at degree 1 only" in verdict("check_rebound_radius", lambda step, degree: step / 2)[1]


def test_a_bias_that_is_not_there_is_named():
    def answer(layer, constants):
        return torch.einsum("oihw,i->o", layer.weight, constants) + layer.bias

    assert "`layer.bias` may be None" in verdict("check_folded_bias", answer)[1]


def test_the_loop_of_a_reader_who_forgets_the_return_passes_and_whose_steps_count_from_zero_does_not():
    def loop(first):
        def train(network, data, regularizer, epochs, proximal, lr=0.02, batch_size=64):
            optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, weight_decay=5e-4)
            order, step = torch.Generator().manual_seed(0), first
            for epoch in range(epochs):
                rate = optimizer.param_groups[0]["lr"] = lr * 0.2 ** (3 * epoch // epochs)
                for images, labels in data.train.batches(batch_size, order):
                    regularizer.set_progress(step / (3 * epochs))
                    optimizer.zero_grad()
                    torch.nn.functional.cross_entropy(network(images), labels).backward()
                    None if proximal else regularizer.add_gradient_()
                    optimizer.step()
                    regularizer.prox_(rate) if proximal else None
                    step += 1

        return train

    assert verdict("check_complete_the_loop", loop(1))[0]
    assert "count from 1" in verdict("check_complete_the_loop", loop(0))[1]


def test_the_package_s_own_loop_is_no_answer_to_the_exercise_that_asks_for_one():
    def called(network, data, regularizer, epochs, proximal):
        return hg.fit(network, data, regularizer, epochs=epochs, proximal=proximal, lr=0.02, batch_size=64)

    passed, said = verdict("check_complete_the_loop", called)
    assert not passed
    assert "write the loop itself" in said


def test_of_equal_weights_any_may_go_but_not_more_than_were_asked_for():
    def by_places(weight, share, late=False):
        order = weight.abs().flatten().argsort(descending=True)
        if late:
            order = (weight.abs().flatten() - 1e-7 * torch.arange(weight.numel())).argsort(descending=True)
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[order[: weight.numel() - round(share * weight.numel())]] = True
        return mask.view(weight.shape)

    def by_limit(weight, share):
        smallest = max(round(share * weight.numel()), 1)
        return weight.abs() > weight.abs().flatten().kthvalue(smallest).values

    assert verdict("check_magnitude_mask", by_places)[0]
    assert verdict("check_magnitude_mask", lambda weight, share: by_places(weight, share, late=True))[0]
    assert "A share of 0 cuts nothing" in verdict("check_magnitude_mask", by_limit)[1]


def test_a_slip_of_the_pen_is_shown_and_not_taken_for_another_mistake():
    def folded(layer, constants):
        if layer.bias is None:
            return no_such_name  # noqa: F821
        return layer.bias + layer.weight.sum((2, 3)) @ constants

    right, hint = verdict("check_folded_bias", folded)
    assert not right
    assert "NameError" in hint
    assert "may be None" not in hint


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        ("check_kernel_force", lambda w, grouping, r, p, q: hg.Penalty("gl", grouping).force(w)),
        ("check_safe_gl12", lambda w: hg.Penalty("gl12")(w)),
    ],
)
def test_an_answer_that_only_asks_the_package_does_not_pass(check, answer, capsys):
    assert not getattr(checks, check)(answer)
    assert "write the formula out" in capsys.readouterr().out


def test_the_nine_rows_by_heart_are_not_the_rule_of_a_1(capsys):
    plain = {(2, 2.0, 0.5), (1, 1.0, 2.0), (1, 1.0, 0.5)}
    assert not checks.check_sees_kernels(lambda *row: row not in plain)


def test_a_dense_convolution_of_images_without_infinities_does_not_pass_as_a_living_one(capsys):
    def dense(layer, images):
        finite = torch.where(images.isfinite(), images, 0.0)
        return torch.nn.functional.conv2d(finite, layer.weight, layer.bias, padding=1)

    assert not checks.check_living_convolution(dense)
    assert "that holds dead kernels" in capsys.readouterr().out
