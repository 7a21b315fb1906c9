"""How an estimator is run: seed, device, checkpoints, progress; and the training loop they share."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rcccodec.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    seconds_spent,
    steps_done,
)
from rcccodec.description import DAMAGE, printable
from rcccodec.errors import LimitError, ModelError

CHECKPOINT_EVERY_S = 30.0


@dataclass(frozen=True)
class Run:
    """Seed, device, checkpoints and progress of one estimation.

    Attributes:
        data: a digest of the source's vectors; a checkpoint of others is not used.
        seed: non-negative; everything random is drawn from ``generator(...)``.
        device: of the heavy work.
        folder: for checkpoints, made by the caller; None: none are written or read.
        progress: told (what, done, total).
    """

    seed: int = 0
    data: str = ""
    device: str = "cpu"
    folder: Path | None = None
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None

    def generator(self, *key: object) -> torch.Generator:
        """A CPU generator that is a function of the seed and the key alone."""
        digest = hashlib.sha256(repr((self.seed, *key)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def load(self, name: str, plan: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The checkpoint ``name`` if there is one and it was made for ``plan`` and this seed.

        Raises:
            ModelError: it is damaged.
        """
        path = self._path(name)
        if path is None or not os.path.exists(path):
            return None
        tensors, values = load_checkpoint(path)
        return (tensors, values) if values.get("plan") == self._plan(plan) else None

    def save(
        self, name: str, plan: Mapping[str, Any], tensors: dict[str, Tensor], values: dict[str, Any]
    ) -> None:
        """Replace the checkpoint ``name``.

        Raises:
            OutputError: it cannot be written.
        """
        path = self._path(name)
        if path is not None:
            save_checkpoint(path, tensors, values | {"plan": self._plan(plan)})

    def _path(self, name: str) -> Path | None:
        plain = re.sub(r"[^A-Za-z0-9.+-]", "_", name)
        return None if self.folder is None else self.folder / f"{plain}.safetensors"

    def _plan(self, plan: Mapping[str, Any]) -> Any:
        return json.loads(json.dumps({**plan, "seed": self.seed, "data": self.data}))


def fit(
    name: str,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    update: Callable[[int, torch.Generator], None],
    steps: int,
    run: Run,
    plan: Mapping[str, Any],
    what: str = "",
) -> float:
    """Call ``update(step, generator)`` for every step, with checkpoints from which a later call goes on.

    Args:
        name: of the checkpoint.
        modules, optimizers: what ``update`` changes; its randomness must come from ``generator`` alone.
        plan: JSON-able settings; a checkpoint made for others is not used.
        what: for the progress; ``name`` if empty.

    Returns:
        Seconds of training, earlier calls included.

    Raises:
        LimitError: a weight is no longer finite. ModelError: the checkpoint is damaged.
        OutputError: it cannot be written.

    Invariants: stopped and resumed, the weights end as they would have without the stop.
    """
    start, before_s = _restore(run.load(name, plan), name, modules, optimizers, steps)
    began = saved = time.perf_counter()
    for step in range(start, steps):
        update(step, run.generator(name, step))
        run.progress(what or name, step + 1, steps)
        now = time.perf_counter()
        if step + 1 == steps or now - saved > CHECKPOINT_EVERY_S:
            check_finite(name, modules)
            _save(run, name, plan, modules, optimizers, step + 1, before_s + now - began)
            saved = time.perf_counter()
    return before_s + time.perf_counter() - began


def check_finite(name: str, modules: Mapping[str, nn.Module]) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        LimitError: there is one.
    """
    if not all(torch.isfinite(p).all() for module in modules.values() for p in module.parameters()):
        raise LimitError(f"{name}: the training diverged; take a smaller learning rate or slope")


def _save(
    run: Run,
    name: str,
    plan: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    step: int,
    seconds: float,
) -> None:
    tensors = {f"m.{m}.{k}": v for m, module in modules.items() for k, v in module.state_dict().items()}
    for o, optimizer in optimizers.items():
        tensors |= {f"o.{o}.{k}": v for k, v in optimizer_tensors(optimizer).items()}
    run.save(name, plan, tensors, {"step": step, "seconds": seconds})


def _restore(
    found: tuple[dict[str, Tensor], dict[str, Any]] | None,
    name: str,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    steps: int,
) -> tuple[int, float]:
    """Steps made and seconds spent."""
    if found is None:
        return 0, 0.0
    tensors, values = found
    try:
        for m, module in modules.items():
            module.load_state_dict(_below(tensors, f"m.{m}."))
        for o, optimizer in optimizers.items():
            restore_optimizer(optimizer, _below(tensors, f"o.{o}."))
        return steps_done(values, steps), seconds_spent(values)
    except DAMAGE as error:
        cause = printable(" ".join(str(error).split()), 200)
        raise ModelError(f"{name}: not a usable checkpoint ({cause})") from error


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
