"""Float32 is float32 while a search runs, and the caller's settings are his own after it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from rcccodec.arithmetic import full_float32
from rcccodec.channel import best_per_class, select_channel
from rcccodec.proposals.gaussian import GaussianProposal


def settings() -> list[str]:
    backends = torch.backends
    switches = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    return [switch.fp32_precision for switch in switches]


@pytest.fixture(autouse=True)
def reduced() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


class Watching(GaussianProposal):
    """Writes down the settings that its float32 candidates are made under."""

    def candidates(self, z: Tensor) -> Tensor:
        if z.dtype == torch.float32:
            seen.append(settings())
        return super().candidates(z)


seen: list[list[str]] = []


@pytest.mark.parametrize("search", ["channel", "classes"])
def test_a_search_makes_its_candidates_in_full_float32(search: str) -> None:
    seen.clear()
    before, proposal = settings(), Watching(np.ones(3), 1.0)
    assert "tf32" in before, "else this test shows nothing"
    if search == "channel":
        select_channel(torch.ones(2, 3), proposal, beta=1.0, coder="pfr", seed=0, num_candidates=50)
    else:
        best_per_class(torch.ones(2, 3), proposal, class_starts=np.array([0]), num_candidates=50, seed=0)
    assert seen
    assert all(values == ["ieee"] * 4 for values in seen)
    assert settings() == before


def test_settings_come_back_after_an_error_and_only_after_the_last_of_several_searches() -> None:
    before = settings()
    first, second = full_float32(), full_float32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert settings() == ["ieee"] * 4
    second.__exit__(None, None, None)
    assert settings() == before
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert settings() == before
