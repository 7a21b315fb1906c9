"""Checkpoints: everything comes back, damage is one error, nothing is unpickled."""

import json
import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rcccodec.checkpoint import (
    MAX_HEADER_BYTES,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from rcccodec.errors import ModelError, OutputError

VALUES = {"step": 3, "loss": 0.1 + 0.2, "plan": {"slopes": [0.1, 1.0], "name": "ä"}, "none": None}


SPOILT_VALUES = {
    "deep": '{"a": ' + "[" * 1000 + "]" * 1000 + "}",
    "very deep": "[" * 100_000,
    "twice": '{"step": 1, "step": 2}',
    "huge number": '{"step": 1' + "0" * 5000 + "}",
}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weights": torch.randn(3, 4, generator=generator),
        "transposed": torch.randn(3, 4, generator=generator).T,
        "parameter": torch.nn.Parameter(torch.randn(2, generator=generator)),
        "scalar": torch.tensor(7.0),
        "rng": torch.get_rng_state(),
    }


def test_tensors_and_values_come_back_to_the_bit(tmp_path: Path):
    save_checkpoint(tmp_path / "c", tensors(), VALUES)
    loaded, values = load_checkpoint(tmp_path / "c")
    assert values == VALUES
    assert loaded.keys() == tensors().keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors().items())


def test_a_run_that_has_no_loss_yet_comes_back(tmp_path: Path):
    save_checkpoint(tmp_path / "c", {}, {"loss": math.nan, "best": math.inf})
    values = load_checkpoint(tmp_path / "c")[1]
    assert math.isnan(values["loss"])
    assert values["best"] == math.inf


def test_a_second_save_replaces_the_first_and_leaves_nothing_else(tmp_path: Path):
    save_checkpoint(tmp_path / "c", tensors(), VALUES)
    save_checkpoint(tmp_path / "c", {"a": torch.zeros(1)}, {"step": 4})
    assert load_checkpoint(tmp_path / "c")[1] == {"step": 4}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_checkpoint(tmp_path / "c", tensors(), VALUES)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_checkpoint(tmp_path / "c", {"a": torch.zeros(1)}, {"step": 4})
    assert load_checkpoint(tmp_path / "c")[1] == VALUES
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_damaged_missing_and_foreign_files_are_model_errors(tmp_path: Path):
    save_checkpoint(tmp_path / "whole", tensors(), VALUES)
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(data[: len(data) // 2])
    (tmp_path / "header").write_bytes((1 << 60).to_bytes(8, "little") + data[8:])
    (tmp_path / "pickle").write_bytes(pickle.dumps({"step": 1}))
    save_file({"a": torch.zeros(1)}, tmp_path / "plain")
    save_file({"a": torch.zeros(1)}, tmp_path / "nonsense", {"values": "{"})
    save_file({"a": torch.zeros(1)}, tmp_path / "list", {"values": json.dumps([1])})
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    long = (MAX_HEADER_BYTES + 1).to_bytes(8, "little")
    (tmp_path / "long").write_bytes(long + b"{}".ljust(MAX_HEADER_BYTES + 1))
    for name, text in SPOILT_VALUES.items():
        save_file({"a": torch.zeros(1)}, tmp_path / name, {"values": text})
    names = ["pipe", "device", "loop", "long", *SPOILT_VALUES]
    names += ["empty", "short", "header", "pickle", "plain", "nonsense", "list", "folder", "missing"]
    for name in names:
        with pytest.raises(ModelError, match="not a readable checkpoint") as caught:
            load_checkpoint(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def trained(optimizer_steps: int) -> tuple[torch.nn.Linear, torch.optim.Adam]:
    layer = torch.nn.Linear(3, 2)
    for i, p in enumerate(layer.parameters()):
        p.data.fill_(i + 0.5)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(optimizer_steps):
        step(layer, optimizer)
    return layer, optimizer


def step(layer: torch.nn.Linear, optimizer: torch.optim.Adam) -> None:
    optimizer.zero_grad()
    layer(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


def test_a_restored_optimizer_goes_on_as_the_old_one(tmp_path: Path):
    layer, optimizer = trained(5)
    save_checkpoint(tmp_path / "c", {**optimizer_tensors(optimizer)}, {})
    other, fresh = trained(0)
    other.load_state_dict(layer.state_dict())
    restore_optimizer(fresh, load_checkpoint(tmp_path / "c")[0])
    unrestored, without = trained(0)
    unrestored.load_state_dict(layer.state_dict())
    for both in ((layer, optimizer), (other, fresh), (unrestored, without)):
        step(*both)
    assert torch.equal(layer.weight, other.weight)
    assert not torch.equal(layer.weight, unrestored.weight)  # the control: the state does matter


@pytest.mark.parametrize("name", ["9.exp_avg", "-1.exp_avg", "x.exp_avg", "exp_avg"])
def test_state_of_another_network_is_refused(name: str):
    _, optimizer = trained(1)
    with pytest.raises(ValueError, match=r".+"):
        restore_optimizer(optimizer, {name: torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="does not fit"):
        restore_optimizer(optimizer, {"0.exp_avg": torch.zeros(5)})


def test_every_changed_byte_is_seen(tmp_path: Path):
    save_checkpoint(tmp_path / "c", {"a": torch.arange(3.0), "b": torch.zeros(0)}, {"step": 1})
    data = (tmp_path / "c").read_bytes()
    for at in range(len(data)):
        for bit in (1, 0x80):
            (tmp_path / "d").write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
            with pytest.raises(ModelError, match="not a readable checkpoint"):
                load_checkpoint(tmp_path / "d")


def test_a_checkpoint_from_before_the_checksum_is_read(tmp_path: Path):
    save_file({"a": torch.ones(2)}, tmp_path / "old", {"values": json.dumps({"step": 3})})
    tensors, values = load_checkpoint(tmp_path / "old")
    assert values == {"step": 3}
    assert torch.equal(tensors["a"], torch.ones(2))
