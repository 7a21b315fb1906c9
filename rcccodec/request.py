"""What a user asks of the encoder: a model, how much to spend, by which method."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import rcccodec

if TYPE_CHECKING:
    import numpy as np

    from rcccodec.bundle import Model
    from rcccodec.codec import Encoded
    from rcccodec.stages import Progress, Search


@dataclass(frozen=True)
class Request:
    """The options of ``rcc compress`` that decide what a file holds, and the device.

    At most one of ``beta`` (slope), ``quality`` (0 to 100), ``target_bits`` and ``target_psnr_db`` is given.
    ``None`` is the model's default, as in `rcccodec.codec.compress`.
    """

    model: str
    beta: float | None = None
    quality: float | None = None
    target_bits: int | None = None
    target_psnr_db: float | None = None
    coder: str = "mincost"
    index_code: str | None = None
    num_candidates: int | None = None
    seed: int | None = None
    joint: bool | None = None
    device: str = "cpu"

    def fingerprint(self, model_sha256: str) -> str:
        """SHA-256 of all that decides a file besides its image: a file made by an equal one is not made anew.

        The model counts by its hash, whatever it is called; the device does not count.
        """
        values = asdict(self) | {"model": model_sha256, "version": rcccodec.__version__}
        del values["device"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def encode(
        self,
        images: Sequence["np.ndarray"],
        model: "Model",
        *,
        progress: Callable[[], AbstractContextManager["Progress | None"]] = nullcontext,
        search: "Search | None" = None,
    ) -> "Encoded":
        """Compress the images into one file, at the rung that meets the request.

        Args:
            images: as `rcccodec.codec.compress` takes them.
            model: loaded from ``self.model``.
            progress: makes what is told (done, total) candidates of one rung.
            search: see `rcccodec.codec.compress`.

        Raises:
            LimitError: a target is out of reach; else as `rcccodec.codec.compress`.
        """
        from rcccodec import codec, ladder

        rates_bpp = [rung.rate_bpp for rung in model.rungs]

        def at_rung(rung: int | None) -> "Encoded":
            with progress() as told:
                return codec.compress(
                    images,
                    model,
                    rung=rung,
                    coder=self.coder,
                    index_code=self.index_code,
                    num_candidates=self.num_candidates,
                    seed=self.seed,
                    joint=self.joint,
                    device=self.device,
                    progress=told,
                    search=search,
                )

        if self.target_bits is not None:
            return ladder.encode_to_bits(at_rung, rates_bpp, self.target_bits)
        if self.target_psnr_db is not None:
            return ladder.encode_to_psnr(at_rung, rates_bpp, self.target_psnr_db)
        return at_rung(self._rung(model))

    def check(self, model: "Model") -> None:
        """Refuse, before any work, what would be refused for every image.

        Raises:
            LimitError: N, seed, slope or quality is out of range. ModelError: the model has no such code.
        """
        from rcccodec.settings import choose_settings

        choose_settings(
            model,
            rung=self._rung(model),
            coder=self.coder,
            index_code=self.index_code,
            num_candidates=self.num_candidates,
            seed=self.seed,
            joint=self.joint,
        ).codes()

    def _rung(self, model: "Model") -> int | None:
        """The rung to take, the first to try for a target; None is the model's default."""
        from rcccodec import ladder

        rates_bpp = [rung.rate_bpp for rung in model.rungs]
        if self.target_bits is not None:
            return ladder.rungs_by_rate(rates_bpp)[-1]
        if self.target_psnr_db is not None:
            return ladder.rungs_by_rate(rates_bpp)[0]
        if self.beta is not None:
            return ladder.rung_of_slope([rung.beta for rung in model.rungs], self.beta)
        if self.quality is not None:
            return ladder.rung_of_quality(rates_bpp, self.quality)
        return None
