"""A checkpoint is the run that it names, whole, where it was asked for; all else is refused in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hgsr_lite as hg
from hgsr_lite.data import Split
from hgsr_lite.training import TrainingState
from hgsr_lite.training import checkpoint as checkpoints
from hgsr_lite.training.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def data():
    return hg.load_data("digits", device="cpu", limit=100)


def train(path, data, *, seed=0, strength=1e-4, epochs=1, exclude=(), model=None):
    model = model or hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=seed)
    regularizer = hg.Regularizer(model, strength=strength, exclude=exclude)
    return hg.fit(model, data, regularizer, epochs=epochs, checkpoint=path, progress=False)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.pt"
    train(path, data)
    return path


@pytest.fixture
def path(finished, tmp_path):
    return Path(shutil.copy(finished, tmp_path / "run.pt"))


def test_another_split_of_the_same_images_is_another_run(path, data):
    other = hg.load_data("digits", device="cpu", limit=100, seed=1)
    assert len(other.train) == len(data.train)
    with pytest.raises(ValueError, match=r"another run \(images and labels was .*\): give another"):
        train(path, other)


def test_a_single_label_of_the_test_part_makes_another_run(path, data):
    labels = data.test.labels.clone()
    labels[0] = (labels[0] + 1) % 10
    with pytest.raises(ValueError, match="images and labels was"):
        train(path, replace(data, test=Split(data.test.images, labels)))


def test_other_first_weights_are_another_run(path, data):
    with pytest.raises(ValueError, match=r"another run \(first weights was '\w+', now '\w+'\)"):
        train(path, data, seed=1)


def test_another_set_of_layers_is_another_run(path, data):
    with pytest.raises(ValueError, match="regularised layers was"):
        train(path, data, exclude=(first_layer(path),))


def test_a_strength_equal_to_six_digits_is_another_run(path, data):
    with pytest.raises(ValueError, match=r"another run \(strength was 0\.0001, now 0\.0001000000001\)"):
        train(path, data, strength=1.000000001e-4)


def test_another_forward_of_the_same_weights_is_another_run(path, data):
    model = hg.build_model("digits_cnn", in_channels=1, num_classes=10, seed=0)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ReLU):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], torch.nn.Tanh())
    with pytest.raises(ValueError, match="model was"):
        train(path, data, model=model)


def first_layer(path):
    return load_checkpoint(path, {})["identity"]["regularised layers"][0]


def test_the_same_run_is_read_back(path, data):
    assert train(path, data).test == train(path, data).test


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_flipped_bit_is_noticed_wherever_it_is(path, share):
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.pt is (damaged, its checksum|no readable checkpoint)"):
        load_checkpoint(path, {})


def test_a_file_cut_short_is_noticed(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"damaged, its checksum does not fit: give another checkpoint path"):
        load_checkpoint(path, {})


def test_a_checkpoint_of_an_earlier_version_is_refused_with_advice(path):
    """Its history names other quantities: read on, a run would be told in two languages."""
    path.write_bytes(path.read_bytes().replace(b"checkpoint 3", b"checkpoint 2", 1))
    with pytest.raises(ValueError, match=r"no readable checkpoint of this version .*: give another"):
        load_checkpoint(path, {})


@pytest.mark.parametrize("rest", [{}, {"identity": 3}, [1, 2], {"identity": None}])
def test_a_whole_file_that_is_no_checkpoint_is_refused(rest, tmp_path):
    save_checkpoint(tmp_path / "run.pt", rest)
    with pytest.raises(ValueError, match=r"run\.pt is no readable checkpoint"):
        load_checkpoint(tmp_path / "run.pt", {"seed": 0})


class NeverTrained(torch.nn.Module):
    """A model whose training is an error: what is wrong was to be found before."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, images):
        assert not self.training, "the training began"
        return self.layer(images.flatten(1))


def test_a_place_that_cannot_be_written_is_found_before_training(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written \((Not a dir|File exists).*another path"):
        train(tmp_path / "file" / "run.pt", data, model=NeverTrained())
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"(cannot be written|cannot be read) \(Is a directory\)"):
        train(tmp_path / "folder", data, model=NeverTrained())


def test_a_disk_without_room_is_found_before_training(data, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"needs .* MB beside it .*the disk has 0\.0 MB: make room"):
        train(tmp_path / "run.pt", data, model=NeverTrained())


def test_room_is_asked_for_as_much_as_the_optimizer_will_add(data, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    path.write_bytes(bytes(1000))
    usage = shutil.disk_usage(tmp_path)
    for free, fits in ((2999, False), (3000, True)):  # weights, and up to two numbers more for each
        monkeypatch.setattr(
            checkpoints.shutil, "disk_usage", lambda folder, free=free: usage._replace(free=free)
        )
        if fits:
            checkpoints.check_room(path)
        else:
            with pytest.raises(ValueError, match="make room"):
                checkpoints.check_room(path)


def test_a_link_stays_a_link_and_its_target_is_written(path, data, tmp_path):
    target = tmp_path / "elsewhere" / "target.pt"
    target.parent.mkdir()
    link = tmp_path / "link.pt"
    link.symlink_to(target)
    train(link, data)
    assert link.is_symlink()
    assert load_checkpoint(target, {})["epoch"] == 1
    assert os.listdir(target.parent) == ["target.pt"]


@pytest.mark.skipif(os.name == "nt", reason="modes are a matter of POSIX")
def test_the_mode_follows_the_umask_and_an_existing_mode_is_kept(tmp_path):
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from hgsr_lite.training.checkpoint import save_checkpoint\n"
        "os.umask(0o027)\nsave_checkpoint(Path(sys.argv[1]), {'identity': {}})\n"
    )
    target = tmp_path / "run.pt"
    for wanted in (0o640, 0o604):
        if target.exists():
            target.chmod(wanted)
        subprocess.run([sys.executable, "-c", script, str(target)], check=True)
        assert target.stat().st_mode & 0o777 == wanted


@pytest.mark.parametrize("part", sorted(checkpoints.STATE))
def test_a_checkpoint_without_one_of_its_parts_is_refused_by_name(part, path):
    state = load_checkpoint(path, {})
    del state[part]
    save_checkpoint(path, state)
    with pytest.raises(ValueError, match=r"run\.pt is no readable checkpoint") as refused:
        load_checkpoint(path, {})
    assert part in str(refused.value.__cause__)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device files here")
def test_a_file_without_an_end_is_never_read():
    with pytest.raises(ValueError, match="is no file"):
        load_checkpoint(Path("/dev/zero"), {})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here: nothing was resumed on one")
def test_a_run_resumed_on_a_gpu_draws_what_it_would_have_drawn():
    data = hg.load_data("digits", device="cuda", limit=100)

    def a_run():
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 10))
        return TrainingState(network.cuda(), data, None, hg.Settings(epochs=2, batch_size=50))

    first, second = a_run(), a_run()
    steps = first.train()
    while not next(steps) >= 0.5:
        pass
    kept, drawn = first.state(), torch.rand(9, device="cuda")
    torch.cuda.manual_seed(7)
    second.restore(kept)
    assert torch.equal(torch.rand(9, device="cuda"), drawn)
