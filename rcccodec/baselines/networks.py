"""A network of any kind from its specification, and what of it a bundle keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from rcccodec.baselines.ntc import Ntc, VectorNtc
from rcccodec.baselines.photo import PhotoNtc
from rcccodec.baselines.spec import NtcSpec

Network = Ntc | VectorNtc | PhotoNtc


def build_network(spec: NtcSpec, *, for_training: bool = True) -> Network:
    """Untrained networks of this specification; not ``for_training`` they lack the entropy model.

    Raises:
        InputError: CompressAI is needed and not there.
    """
    kind = PhotoNtc if spec.photographs else VectorNtc if spec.kind == "vector" else Ntc
    return kind(spec, for_training=for_training)


def coding_tensors(network: Network) -> dict[str, Tensor]:
    """What coding needs besides the tables: weights, and the features' buffers. Views, not copies."""
    kept = {name: value.data for name, value in network.named_parameters()}
    kept |= {name: value for name, value in network.named_buffers() if name in ("mean", "whiten")}
    return {name: value for name, value in kept.items() if not name.startswith(("bottleneck.", "gaussian."))}


def round_to_stored(network: Network) -> None:
    """Round the weights to the float16 values that a bundle keeps, in place."""
    for value in coding_tensors(network).values():
        value.copy_(value.to(torch.float16))


def with_weights(spec: NtcSpec, tensors: dict[str, Tensor]) -> Network:
    """Networks for coding, frozen, with stored weights.

    Raises:
        ValueError: a tensor is missing, left over, of another shape, or not finite.

    Invariant: the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if spec.photographs else "meta"):
        network = build_network(spec, for_training=False)
    wanted = coding_tensors(network)
    if set(wanted) != set(tensors):
        raise ValueError(f"weights missing or left over: {sorted(set(wanted) ^ set(tensors))[0]}")
    for name, value in wanted.items():
        if tensors[name].shape != value.shape or not torch.isfinite(tensors[name]).all():
            raise ValueError(f"weights {name} are of another shape or not finite")
    network.load_state_dict({name: t.float() for name, t in tensors.items()}, strict=False, assign=True)
    return network.eval().requires_grad_(False)
