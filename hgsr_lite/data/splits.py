"""Which images train, which choose, which test: indices drawn by seed, each class in proportion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hgsr_lite.arguments import as_number, check_count, check_seed

_TEST_SHARE = 0.2
_TEST_SEED = 0


def split_indices(
    labels: Tensor,
    is_test: Tensor | None,
    classes: Sequence[str],
    validation: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
) -> list[Tensor]:
    """Indices of the training, validation and test images, each in rising order.

    `labels`: int64 (images,); `is_test`: booleans (images,), or None to make a fixed fifth the test part. The
    validation part is drawn from the rest by `seed`. `limit` caps the training images; the other parts are
    cut in proportion. Every class keeps at least one image in every part.

    Raises `ValueError` for impossible shares and limits, and for a class of fewer than three images.

    >>> labels = torch.arange(20) % 2
    >>> [len(part) for part in split_indices(labels, None, ("even", "odd"), validation=0.25)]
    [12, 4, 4]
    """
    if not 0 < as_number(validation) <= 0.5:
        raise ValueError(f"validation must be a share above 0 and at most 0.5, not {validation!r}")
    validation, seed = as_number(validation), check_seed(seed)
    fewest, scarcest = torch.bincount(labels, minlength=len(classes)).min(0)
    if fewest < 3:
        raise ValueError(
            f"class {classes[scarcest]!r} has too few images ({fewest}): every class needs at least 3, one "
            "for each of train, validation and test"
        )
    fixed, seeded = torch.Generator().manual_seed(_TEST_SEED), torch.Generator().manual_seed(seed)
    everything = torch.arange(len(labels))
    if is_test is None:
        test, rest = draw(everything, labels, _TEST_SHARE, fixed)
    else:
        test, rest = everything[is_test], everything[~is_test]
    held_out, train = draw(rest, labels, validation, seeded)
    if limit is not None:
        limit = check_count("limit", limit, len(classes))
        share = min(1.0, limit / len(train))
        train, held_out = (draw(part, labels, share, seeded)[0] for part in (train, held_out))
        test = draw(test, labels, share, fixed)[0]
    return [train, held_out, test]


def draw(pool: Tensor, labels: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a share of the indices in `pool`, each class in proportion, none left out; return it and the rest.

    >>> drawn, rest = draw(torch.arange(8), torch.arange(8) // 4, 0.5, torch.Generator().manual_seed(0))
    >>> (drawn // 4).tolist(), (rest // 4).tolist()
    ([0, 0, 1, 1], [0, 0, 1, 1])

    scikit-learn's `train_test_split(stratify=)` keeps no such promise: of classes with 50, 3 and 7 images, a
    tenth left the second out for every seed tried, and it refuses a share of fewer images than classes.
    """
    shuffled = pool[torch.randperm(len(pool), generator=generator)]
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    own, counts = labels[by_class], labels[by_class].bincount()
    # Rank within the class over the class's size: the lowest values hold each class in proportion.
    rank = torch.arange(len(pool)) - (counts.cumsum(0) - counts)[own]
    ordered = by_class[(rank / counts[own]).argsort(stable=True)]
    count = max(round(share * len(pool)), int((counts > 0).sum()))
    return ordered[:count].sort().values, ordered[count:].sort().values
