"""A file of living kernels is as small as they are, comes back whole, and is refused where it cannot be."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import hgsr_lite as hg
from benchmarks.dense_forms import kill_kernels_
from benchmarks.measurements import SMALL_AND_LARGE
from hgsr_lite.skipping import choice, living_state, load_living, packing, save_living
from hgsr_lite.skipping.living_file import living_bytes
from hgsr_lite.skipping.packing import BITS, CHECKSUM, INDEX, checksum_of, packed_index
from tests.skipping.networks import distance, network


def needed_bytes(model: nn.Module) -> float:
    """Living kernels times their weights, one bit a kernel, and all that is no convolution's weight."""
    layers = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    alive = [(weight != 0).flatten(2).any(-1) for weight in layers]
    living = sum(int(each.sum()) * weight[0, 0].nbytes for each, weight in zip(alive, layers, strict=True))
    rest = sum(tensor.nbytes for tensor in model.state_dict().values()) - sum(each.nbytes for each in layers)
    return living + sum(each.numel() for each in alive) / 8 + rest


def without_kernels(name: str, share: float) -> nn.Module:
    """A network that the benchmarks time, with a share of its kernels dead."""
    model, generator = SMALL_AND_LARGE[name](), torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            kill_kernels_(module, share, generator)
    return model


@pytest.mark.parametrize("share", [0.9, 0.95])
@pytest.mark.parametrize("name", SMALL_AND_LARGE)
def test_the_file_is_at_most_a_tenth_larger_than_what_it_must_hold(name, share, tmp_path):
    model = without_kernels(name, share)
    size = save_living(model, tmp_path / "living.safetensors")
    assert size == living_bytes(model)
    assert needed_bytes(model) <= size <= 1.1 * needed_bytes(model)


@pytest.mark.parametrize("width", [0.05, 0.25, 0.5])
def test_what_a_small_networks_file_holds_besides_is_some_400_bytes_and_the_index(width):
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, width=width)
    besides = living_bytes(model) - needed_bytes(model)
    assert 0 < besides < 420 + 12 * len(model.state_dict())


def test_a_cut_network_comes_back_from_its_file_and_from_torch_load(tmp_path):
    model = network("digits_cnn")
    model.features.conv2.weight.data[:, :7] = 0
    images = torch.randn(4, 3, 8, 8)
    small, _ = hg.compact(model, images, repeats=0)
    save_living(small, tmp_path / "living.safetensors")
    torch.save(living_state(small), tmp_path / "living.pt")
    whole = hg.build_model("digits_cnn", in_channels=3, num_classes=10).eval()
    for file in (tmp_path / "living.safetensors", torch.load(tmp_path / "living.pt", weights_only=True)):
        assert distance(small, load_living(whole, file), images) == 0


def test_numbers_of_every_kind_and_shape_come_back():
    class Mixed(nn.Module):
        def __init__(self, value: int) -> None:
            super().__init__()
            self.plane, self.line = nn.Conv2d(3, 2, 3).bfloat16(), nn.Conv1d(2, 6, 4, groups=2)
            self.space = nn.ConvTranspose3d(3, 2, 2).double()
            for name, shape in (("one", ()), ("none", (0, 3)), ("many", (2, 1, 3))):
                self.register_buffer(name, torch.full(shape, value))
            self.register_buffer("truth", torch.tensor([value > 0]))

    model = Mixed(7)
    for layer in (model.plane, model.space):
        layer.weight.data[:, 0] = 0
    found = load_living(Mixed(0), living_state(model)).state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in model.state_dict().items())
    assert load_living(nn.Linear(2, 1), living_state(nn.Linear(2, 1))).in_features == 2


@contextmanager
def choices(monkeypatch: pytest.MonkeyPatch, *living: int) -> Iterator[None]:
    """Layers of so many input channels are faster without their dead kernels, all others dense."""
    with monkeypatch.context() as patch:
        patch.setattr(
            choice, "_seconds_of", lambda layer, *_: (1.0, 0.1 if layer.in_channels in living else 2.0)
        )
        patch.setattr(choice, "_in_tiles", lambda *_: None)
        yield


def test_a_file_loads_where_the_clock_chooses_the_other_way_round(monkeypatch, tmp_path):
    model, images = network("digits_cnn"), torch.randn(20, 3, 8, 8)
    with choices(monkeypatch, 32):
        here, report = hg.skip_dead_kernels(model, images, repeats=0)
    save_living(model, tmp_path / "living.safetensors")
    whole = hg.build_model("digits_cnn", in_channels=3, num_classes=10).eval()
    with choices(monkeypatch, 3, 64):
        loaded = load_living(whole, tmp_path / "living.safetensors")
        there, other = hg.skip_dead_kernels(loaded, images, repeats=0)
    dense = [[bool(layer.dense_because) for layer in each.layers] for each in (report, other)]
    assert dense == [[True, False, True], [False, True, False]]
    assert here.state_dict().keys() != there.state_dict().keys(), "then a state dict would do as well"
    for count in (1, 20):
        assert distance(here, there, images[:count]) < 1e-5


@pytest.mark.parametrize("living", [(32,), ()])
def test_a_network_whose_layers_have_lost_their_names_is_not_saved_but_refused(living, monkeypatch, tmp_path):
    with choices(monkeypatch, *living):
        small, _ = hg.skip_dead_kernels(network("digits_cnn"), torch.randn(2, 3, 8, 8), repeats=0)
    with pytest.raises(ValueError, match="takes the network that skip_dead_kernels was given"):
        save_living(small, tmp_path / "living.safetensors")
    assert not [*tmp_path.iterdir()]


def small_layer() -> nn.Sequential:
    """Six kernels, the first two of them dead."""
    layer = nn.Sequential(nn.Conv2d(2, 3, 3))
    layer[0].weight.data[0] = 0
    return layer


Damage = Callable[[dict[str, Tensor]], object]
WEIGHT, SHAPE = "0.weight", [3, 2, 3, 3]


def put(key: str, value: Tensor) -> Damage:
    return lambda state: state.update({key: value})


def index_of(text: bytes) -> Damage:
    return put(INDEX, torch.tensor([*zlib.compress(text)], dtype=torch.uint8))


def rows(change: Callable[[list[list]], object]) -> Damage:
    """Let `change` work on the rows of the index: the first is the weight's, the second the bias's."""

    def damage(state: dict[str, Tensor]) -> None:
        found = json.loads(zlib.decompress(bytes(state[INDEX].tolist())))["tensors"]
        change(found)
        state[INDEX] = packed_index(found)

    return damage


def weight_row(
    name: object = WEIGHT, dtype: object = "float32", shape: object = SHAPE, *more: object
) -> Damage:
    return rows(lambda found: found.__setitem__(0, [name, dtype, shape, *(more or [True])]))


def bias_row(place: int, value: object) -> Damage:
    return rows(lambda found: found[1].__setitem__(place, value))


NO_ROW, DAMAGED = "not a name, a dtype, a shape and", "index of the file of living kernels is damaged, "
DAMAGES = {
    "no index": (lambda state: state.pop(INDEX), "no living_index, it is not of version 2"),
    "no bits": (lambda state: state.pop(BITS), "no living_bits, it is not of version 2"),
    "too many bits": (put(BITS, torch.zeros(9, dtype=torch.uint8)), "9 bytes of bits for 6 kernels"),
    "all bits set": (lambda state: state[BITS].fill_(255), "2 set behind the last"),
    "a living kernel less": (lambda state: state[BITS].bitwise_and_(0b11011111), "for 30 numbers"),
    "bits as numbers": (put(BITS, torch.ones(1)), "bytes in a row, not torch.float32"),
    "bits in a square": (put(BITS, torch.zeros(1, 1, dtype=torch.uint8)), r"in a row, not .*\(1, 1\)"),
    "too many numbers": (put("float32", torch.ones(40)), r"shape \(40,\) for 39 numbers of float32"),
    "numbers of another dtype": (put("float32", torch.ones(39).double()), "float64 .* numbers of float32"),
    "numbers in two rows": (put("float32", torch.ones(3, 13)), r"shape \(3, 13\) for 39"),
    "no numbers": (lambda state: state.pop("float32"), r"numbers of \[\], its index those of \['float32'\]"),
    "numbers of nothing": (put("int8", torch.ones(1)), r"'int8'\], its index those of \['float32'\]"),
    "a side below one": (weight_row(shape=[3, -1, 3, 3]), "is none of a convolution"),
    "too few sides": (weight_row(shape=[3, 2]), "is none of a convolution"),
    "a bias below zero": (bias_row(2, [-3]), "is none of a tensor"),
    "half a side": (weight_row(shape=[3, 2, 3, 3.5]), NO_ROW),
    "a truth for a side": (weight_row(shape=[3, 2, 3, True]), NO_ROW),
    "a shape that is none": (weight_row(shape=3), NO_ROW),
    "a name that is none": (weight_row(name=3), NO_ROW),
    "a dtype that is none": (weight_row(dtype=None), NO_ROW),
    "a number for a truth": (weight_row(WEIGHT, "float32", SHAPE, 1), NO_ROW),
    "a row too long": (weight_row(WEIGHT, "float32", SHAPE, True, 1), NO_ROW),
    "a name twice": (bias_row(0, WEIGHT), "names a tensor twice"),
    "a name too few": (rows(lambda found: found.pop()), "for 36 numbers"),
    "more than memory": (weight_row(shape=[10**6, 10**6, 3, 3]), r"one of shape \(3, 2, 3, 3\): build the"),
    "a layer of no model": (weight_row(name="9.weight"), "9.weight .* has none of that name"),
    "a bias of no model": (bias_row(0, "1.bias"), "does not fit"),
    "another version": (put(INDEX, packed_index([], version=3)), "is of version 3, read here is 2"),
    "no version": (index_of(b'{"tensors": []}'), "holds no list of tensors"),
    "no table": (index_of(b"[1, 2]"), "holds no list of tensors"),
    "no text": (index_of(b"\xff\xfe\x00"), DAMAGED),
    "no JSON": (index_of(b"{"), DAMAGED),
    "a bottomless list": (index_of(b"[" * 10**6), DAMAGED),
    "not compressed": (lambda state: state[INDEX].fill_(0), DAMAGED),
    "cut off": (lambda state: put(INDEX, state[INDEX][:-9].clone())(state), "cut off or longer than"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_file_is_refused_whose_checksum_fits(what):
    layer = small_layer()
    state = living_state(layer)
    damage, words = DAMAGES[what]
    damage(state)
    state[CHECKSUM] = checksum_of({key: tensor for key, tensor in state.items() if key != CHECKSUM})
    with pytest.raises(ValueError, match=words):
        load_living(layer, state)


def test_an_index_that_unfolds_to_more_than_any_network_has_is_not_read_to_its_end(monkeypatch):
    state = living_state(small_layer())
    monkeypatch.setattr(packing, "_LONGEST", 50)
    with pytest.raises(ValueError, match="cut off or longer than 50 bytes"):
        load_living(small_layer(), state)


def test_a_file_of_the_first_version_is_refused_with_what_to_do():
    layer = small_layer()
    state = {
        "0.bias": layer[0].bias.detach(),
        "0.weight.living_bitmap": torch.tensor([0b00111100], dtype=torch.uint8),
        "0.weight.living_shape": torch.tensor(SHAPE),
        "0.weight.living_weight": layer[0].weight.detach()[1:].reshape(4, 9),
    }
    state[CHECKSUM] = checksum_of(state)
    with pytest.raises(ValueError, match="not of version 2, which alone is read here: save it again"):
        load_living(layer, state)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "text").write_text("no tensors here, but long enough to look like it")
    with pytest.raises(ValueError, match="no file of living kernels"):
        load_living(nn.Sequential(nn.Conv2d(2, 3, 3)), tmp_path / "text")
