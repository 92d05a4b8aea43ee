"""What the project says of the method on real images, measured again: accuracy beside sparsity."""

from __future__ import annotations

import pytest

import hgsr_lite as hg

pytestmark = pytest.mark.trains


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_digits_most_weights_go_and_the_accuracy_stays(surely):
    """`hsq_gl12` feature-wise: nine weights in ten below 1e-3, at a cost of less than 2.5 points.

    The cost is the dense network's accuracy less this one's, seed by seed; it was 0.5 +- 0.5 points (mean and
    standard deviation of six seeds; one test image is 0.28 points) and the share 94.4 +- 1.1 %. From five
    such seeds the ends of the intervals reach the bounds below less than once in ten thousand times.
    """
    cost, sparsity = [], []
    for seed in range(5):
        data = hg.load_data("digits", device="cpu", seed=seed)
        accuracy = {}
        for strength in (0, 1.3e-4):
            model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=seed)
            reg = hg.Regularizer(model, "hsq_gl12", strength=strength) if strength else None
            test = hg.fit(model, data, reg, epochs=40, batch_size=64, seed=seed, progress=False).test
            accuracy[strength] = test.accuracy_after_zeroing
        cost.append(accuracy[0] - accuracy[1.3e-4])
        sparsity.append(test.below_tolerance)
    assert surely(sparsity)[0] > 0.9
    assert surely(cost)[1] < 0.025


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(1200)
def test_on_mnist_alexnet_keeps_its_accuracy_with_three_quarters_of_the_weights_gone(mnist_root):
    """One seed: dense reaches 98.5 %; with a warmed-up penalty at least 75 % below 1e-3 within 0.5 points."""
    data = hg.load_data("mnist", root=mnist_root, device="cpu")
    results = {}
    for name, epochs in (("dense", 5), ("regularised", 7)):
        model = hg.build_model("alexnet", in_channels=1, num_classes=10, seed=0)
        reg = (
            hg.Regularizer(model, "hsq_gl12", strength=1.5e-4, warmup=0.5) if name == "regularised" else None
        )
        results[name] = hg.fit(model, data, reg, epochs=epochs, batch_size=64, progress=False).test
    assert results["dense"].accuracy >= 0.985
    assert results["regularised"].below_tolerance >= 0.75
    assert results["regularised"].accuracy_after_zeroing >= results["dense"].accuracy - 0.005
