"""A network of any kind from its specification, and what of it a bundle keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from rcccodec.baselines.block import BlockNtc
from rcccodec.baselines.ntc import Ntc, VectorNtc
from rcccodec.baselines.photo import PhotoNtc
from rcccodec.baselines.spec import NtcSpec

Network = Ntc | BlockNtc | VectorNtc | PhotoNtc
_KINDS: dict[str, type[Ntc] | type[BlockNtc] | type[VectorNtc] | type[PhotoNtc]] = {
    "image": Ntc,
    "block": BlockNtc,
    "vector": VectorNtc,
    "factorized": PhotoNtc,
    "hyperprior": PhotoNtc,
}
LEAST_COMPACT = 10_000  # values of a matrix that is worth a scale for each row


def build_network(spec: NtcSpec, *, for_training: bool = True) -> Network:
    """Untrained networks of this specification; not ``for_training`` they lack the entropy model.

    Raises:
        InputError: CompressAI is needed and not there.
    """
    return _KINDS[spec.kind](spec, for_training=for_training)


def coding_tensors(network: Network) -> dict[str, Tensor]:
    """What coding needs besides the tables: weights, and the features' buffers. Views, not copies."""
    kept = {name: value.data for name, value in network.named_parameters()}
    kept |= {name: value for name, value in network.named_buffers() if name.endswith(("mean", "whiten"))}
    return {name: value for name, value in kept.items() if not name.startswith(("bottleneck.", "gaussian."))}


def stored_tensors(network: Network, *, compact: bool = False) -> dict[str, Tensor]:
    """The weights as a bundle keeps them: float16; ``compact``, large matrices are int8 and a scale a row."""
    stored = {}
    for name, value in coding_tensors(network).items():
        if compact and value.dim() == 2 and value.numel() >= LEAST_COMPACT:
            scale = (value.abs().amax(1) / 127).clamp_min(1e-7).to(torch.float16)
            stored[f"scale.{name}"] = scale
            value = torch.round(value / scale.float()[:, None]).clamp(-127, 127).to(torch.int8)
        else:
            value = value.to(torch.float16)
        stored[name] = value.cpu().contiguous()
    return stored


def loaded_tensors(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of ``stored_tensors``: float32.

    Raises:
        ValueError: scales that do not fit their matrix, or none.
    """
    scales = {name.removeprefix("scale."): t for name, t in stored.items() if name.startswith("scale.")}
    tensors = {name: t.float() for name, t in stored.items() if not name.startswith("scale.")}
    compact = {name for name, t in stored.items() if t.dtype == torch.int8}
    if set(scales) != compact or any(scales[n].shape != tensors[n].shape[:1] for n in compact):
        raise ValueError("scales of compact weights missing or of another shape")
    return {n: t * scales[n].float()[:, None] if n in scales else t for n, t in tensors.items()}


def round_to_stored(network: Network, *, compact: bool = False) -> None:
    """Round the weights to the values that a bundle keeps, in place."""
    rounded = loaded_tensors(stored_tensors(network, compact=compact))
    for name, value in coding_tensors(network).items():
        value.copy_(rounded[name])


def with_weights(spec: NtcSpec, tensors: dict[str, Tensor]) -> Network:
    """Networks for coding, frozen, with these float32 weights.

    Raises:
        ValueError: a tensor is missing, left over, of another shape, or not finite.

    Invariant: the global random state is left as it was.
    """
    if spec.photographs and tensors["g_a.6.weight"].shape != (spec.latent_dim, spec.width, 5, 5):
        raise ValueError("the weights are of other sizes than spec")  # which would be made in vain
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if spec.photographs else "meta"):
        network = build_network(spec, for_training=False)
    wanted = coding_tensors(network)
    if set(wanted) != set(tensors):
        raise ValueError(f"weights missing or left over: {sorted(set(wanted) ^ set(tensors))[0]}")
    for name, value in wanted.items():
        if tensors[name].shape != value.shape or not torch.isfinite(tensors[name]).all():
            raise ValueError(f"weights {name} are of another shape or not finite")
    network.load_state_dict(tensors, strict=False, assign=True)
    return network.eval().requires_grad_(False)
