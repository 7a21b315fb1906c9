"""What a user asks of the encoder: a model, how much to spend, by which method."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import rcccodec
from rcccodec.errors import LimitError

if TYPE_CHECKING:
    import numpy as np

    from rcccodec.bundle import AnyModel
    from rcccodec.codec import Encoded
    from rcccodec.latent.file import Encode
    from rcccodec.stages import Progress, Search


SPENDING = ("beta", "quality", "target_bits", "target_bpp", "target_psnr_db")  # at most one says how much
MOST_TARGET_BITS = 1 << 62  # above any file


@dataclass(frozen=True)
class Request:
    """The options of ``rcc compress`` that decide what a file holds, and the device.

    At most one of ``beta`` (slope), ``quality`` (0 to 100), ``target_bits``, ``target_bpp`` and
    ``target_psnr_db`` is given.
    ``None`` is the model's default, as in `rcccodec.codec.compress`.

    Raises:
        LimitError: two of them.
    """

    model: str
    beta: float | None = None
    quality: float | None = None
    target_bits: int | None = None
    target_bpp: float | None = None
    target_psnr_db: float | None = None
    coder: str | None = None
    effort: int | None = None
    index_code: str | None = None
    num_candidates: int | None = None
    seed: int | None = None
    joint: bool | None = None
    apart: bool | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        given = [name for name in SPENDING if getattr(self, name) is not None]
        if len(given) > 1:
            raise LimitError(f"{given[0]} and {given[1]}: only one can say how much to spend")

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
        model: "AnyModel",
        *,
        progress: Callable[[], AbstractContextManager["Progress | None"]] = nullcontext,
        search: "Search | None" = None,
        encode_pictures: "Encode | None" = None,
    ) -> "Encoded":
        """Compress the images into one file, at the rung that meets the request.

        Args:
            images: as `rcccodec.codec.compress` takes them.
            model: loaded from ``self.model``.
            progress: makes what is told (done, total) candidates, or bits, of one rung.
            search, encode_pictures: see `rcccodec.codec.compress`.

        Raises:
            LimitError: a target is out of reach; else as `rcccodec.codec.compress`.
        """
        from rcccodec import codec, ladder
        from rcccodec.latent.model import LatentModel

        codec.check_images(images)
        target_bits = None if self.target_bits is None else min(self.target_bits, MOST_TARGET_BITS)
        if self.target_bpp is not None:
            if not 0 < self.target_bpp < math.inf:
                raise LimitError(f"target of {self.target_bpp:g} bits a pixel: must be a positive number")
            bits = self.target_bpp * sum(x.shape[0] * x.shape[1] for x in images)
            target_bits = math.floor(min(bits, MOST_TARGET_BITS))  # the product may be infinite
        targeted = target_bits is not None or self.target_psnr_db is not None
        if isinstance(model, LatentModel) and targeted and self.coder in (None, "trellis"):
            self._check_latent_options()
            with progress() as told:
                return codec.compress_latents(
                    images,
                    model,
                    coder=self.coder,
                    effort=self.effort,
                    num_candidates=self.num_candidates,
                    seed=self.seed,
                    target_bits=target_bits,
                    target_psnr_db=self.target_psnr_db,
                    apart=self.apart,
                    device=self.device,
                    progress=told,
                    encode_pictures=encode_pictures,
                )
        rates_bpp = [rung.rate_bpp for rung in model.rungs]

        def at_rung(rung: int | None) -> "Encoded":
            with progress() as told:
                return codec.compress(
                    images,
                    model,
                    rung=rung,
                    coder=self.coder,
                    effort=self.effort,
                    index_code=self.index_code,
                    num_candidates=self.num_candidates,
                    seed=self.seed,
                    joint=self.joint,
                    apart=self.apart,
                    device=self.device,
                    progress=told,
                    search=search,
                    encode_pictures=encode_pictures,
                )

        if target_bits is not None:
            return ladder.encode_to_bits(at_rung, rates_bpp, target_bits)
        if self.target_psnr_db is not None:
            return ladder.encode_to_psnr(at_rung, rates_bpp, self.target_psnr_db)
        return at_rung(self._rung(model))

    def check(self, model: "AnyModel") -> None:
        """Refuse, before any work, what would be refused for every image.

        Raises:
            LimitError: N, seed, slope or quality is out of range. ModelError: the model has no such code.
        """
        from rcccodec.latent import file as latent_file
        from rcccodec.latent.model import LatentModel
        from rcccodec.settings import choose_settings

        if isinstance(model, LatentModel):
            self._check_latent_options()
            latent_file.choose_settings(
                model, slope=self._rung(model), coder=self.coder, effort=self.effort,
                num_candidates=self.num_candidates, seed=self.seed,
            )  # fmt: skip
            return
        if self.effort is not None:
            raise LimitError(f"effort: model {model.name} has none; say how many candidates")
        choose_settings(
            model,
            rung=self._rung(model),
            coder=self.coder or "mincost",
            index_code=self.index_code,
            num_candidates=self.num_candidates,
            seed=self.seed,
            joint=self.joint,
        ).codes()

    def _check_latent_options(self) -> None:
        if self.index_code is not None or self.joint is not None:
            raise LimitError(f"index code and joint: nothing to choose for model {self.model}")

    def _rung(self, model: "AnyModel") -> int | None:
        """The rung to take, the first to try for a target; None is the model's default."""
        from rcccodec import ladder

        rates_bpp = [rung.rate_bpp for rung in model.rungs]
        if self.target_bits is not None or self.target_bpp is not None:
            return ladder.rungs_by_rate(rates_bpp)[-1]
        if self.target_psnr_db is not None:
            return ladder.rungs_by_rate(rates_bpp)[0]
        if self.beta is not None:
            return ladder.rung_of_slope([rung.beta for rung in model.rungs], self.beta)
        if self.quality is not None:
            return ladder.rung_of_quality(rates_bpp, self.quality)
        return None
