"""Errors: what running out of memory looks like, wherever it happens."""

import io

import pytest
import torch
from PIL import Image

from rcccodec import bundle, cli
from rcccodec.errors import LimitError, ModelError, is_out_of_memory
from rcccodec.images import read_image


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("cannot allocate"), False),
        (OSError("no"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool):
    assert is_out_of_memory(error) is expected


def test_torch_says_so_when_it_asks_for_too_much():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def fail(error: Exception):
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("could not create a primitive")])
def test_a_model_that_memory_is_too_small_for_is_not_called_damaged(
    tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
):
    monkeypatch.setattr(bundle, "_build", fail(error))
    with pytest.raises(type(error)):
        bundle.load_model("grey")
    assert cli.run(["samples", "grey", "-o", "-"]) == 7
    assert capfd.readouterr().err == "rcc: error: out of memory\n"
    monkeypatch.setattr(bundle, "_build", fail(RuntimeError("shapes do not match")))
    with pytest.raises(ModelError, match="damaged"):
        bundle.load_model("grey")


def test_a_picture_that_memory_is_too_small_for_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch):
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    assert read_image(content.getvalue())[0].shape == (8, 8)
    monkeypatch.setattr(Image.Image, "load", fail(MemoryError()))
    with pytest.raises(LimitError, match="not enough memory"):
        read_image(content.getvalue())
