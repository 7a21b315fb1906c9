"""How a file is coded: model, rung, coder, index code, N and seed, checked once and for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rcccodec.bundle import Model, Rung, Stage
from rcccodec.container import CODERS, INDEX_CODES, MAX_SEED, MODEL_ID_BYTES, ONE_SHOT_CODERS, Header
from rcccodec.errors import FormatError, LimitError, ModelError
from rcccodec.index_code import IndexCode
from rcccodec.index_code.fitted import FittedCode
from rcccodec.index_code.zipf_huffman import ZipfHuffman
from rcccodec.joint import joint_size, split_count
from rcccodec.layout import Block, tile_size
from rcccodec.model_search import wrong_model

MAX_CANDIDATES = 1 << 24  # that an encoder searches; a file may say more


@dataclass(frozen=True)
class Settings:
    """Everything an encoder and its decoder agree on.

    coder: one of ONE_SHOT_CODERS. index_code: one of INDEX_CODES. num_candidates: N. seed: unsigned 64-bit.
    joint: blocks share indices where N allows it (rcccodec.joint).
    apart: an encoder gives every image of an archive a payload of its own.
    """

    model: Model
    rung: int
    coder: str
    index_code: str
    num_candidates: int
    seed: int
    joint: bool = False
    apart: bool = False

    @property
    def step(self) -> Rung:
        """The rung of the model's ladder."""
        return self.model.rungs[self.rung]

    @property
    def tile(self) -> Block:
        """Smallest rectangle that the blocks of all stages divide."""
        return tile_size([stage.block for stage in self.step.stages])

    def joint_sizes(self) -> list[int]:
        """Blocks that share an index, per stage; 1 where each has its own."""
        if not self.joint:
            return [1] * len(self.step.stages)
        return [joint_size(self.num_candidates, stage.zipf_rate_millibits) for stage in self.step.stages]

    def shares_indices(self, groups: Sequence[Sequence[int]]) -> bool:
        """Whether any two blocks share an index, from the blocks of every group and stage."""
        sizes = self.joint_sizes()
        return any(size > 1 and n >= size for counts in groups for n, size in zip(counts, sizes, strict=True))

    def joint_codes(self) -> list[IndexCode | None]:
        """The index code of what blocks share, per stage; None where each block has its own index.

        The stage's prior or fitted code of just so many blocks. Where the model has none, the index's rate is
        ``size`` times the stage's, so the code is the Zipf-Huffman code of that rate, or the fitted code of
        whichever stage of the model has the nearest rate (the first of several).

        Raises:
            ModelError: the model has no fitted code for this coder.
        """
        parts = zip(self.step.stages, self.joint_sizes(), strict=True)
        return [None if size == 1 else self._joint_code(stage, size) for stage, size in parts]

    def _joint_code(self, stage: Stage, size: int) -> IndexCode:
        rate = size * stage.zipf_rate_millibits
        if self.index_code == "zipf":
            return ZipfHuffman(self.num_candidates, rate)
        own = stage.joint if stage.joint is not None and stage.joint.size == size else None
        if own and self.index_code == "prior" and self.coder in own.priors and self._is_models_codebook():
            return own.priors[self.coder]
        if own and self.coder in own.fitted:
            return FittedCode(own.fitted[self.coder], self.num_candidates)
        return FittedCode(self._fitted_near(rate), self.num_candidates)

    def _is_models_codebook(self) -> bool:
        default = self.model.default_seed, self.model.default_num_candidates
        return (self.seed, self.num_candidates) == default

    def _fitted_near(self, rate_millibits: int) -> list[int]:
        stages = [s for rung in self.model.rungs for s in rung.stages if self.coder in s.fitted]
        if not stages:
            raise ModelError(f"model {self.model.name} has no fitted index code for coder {self.coder}")
        nearest = min(stages, key=lambda stage: abs(stage.zipf_rate_millibits - rate_millibits))
        return nearest.fitted[self.coder]

    def segments(self, counts: Sequence[int]) -> list[tuple[IndexCode, int]]:
        """What a payload holds for ``counts`` blocks of each stage: codes and how many indices of each.

        Two a stage where blocks share indices (theirs, then the last blocks' own), else one.
        """
        parts: list[tuple[IndexCode, int]] = []
        for n, size, code, shared in zip(counts, *self.tables, strict=True):
            num_shared, num_own = split_count(n, size)
            parts += [(code, num_own)] if shared is None else [(shared, num_shared), (code, num_own)]
        return parts

    @cached_property
    def tables(self) -> tuple[list[int], list[IndexCode], list[IndexCode | None]]:
        """``joint_sizes``, ``codes`` and ``joint_codes``, made once."""
        return self.joint_sizes(), self.codes(), self.joint_codes()

    def codes(self) -> list[IndexCode]:
        """The index code of every stage.

        Raises:
            ModelError: the model has no such code for this coder, seed and N.
        """
        stages, name = self.step.stages, self.model.name
        if self.index_code == "zipf":
            try:
                return [ZipfHuffman(self.num_candidates, stage.zipf_rate_millibits) for stage in stages]
            except ValueError as error:
                raise ModelError(f"model {name}: {error}") from error
        if self.index_code == "fitted":
            if any(self.coder not in stage.fitted for stage in stages):
                raise ModelError(f"model {name} has no fitted index code for coder {self.coder}")
            return [FittedCode(stage.fitted[self.coder], self.num_candidates) for stage in stages]
        if not _has_prior(self.model, self.rung, self.coder, self.seed, self.num_candidates):
            raise ModelError(
                f"model {name} has no index prior for coder {self.coder}, seed {self.seed} and "
                f"{self.num_candidates} candidates"
            )
        return [stage.priors[self.coder] for stage in stages]

    def header(self, *, records: bool = False) -> Header:
        """What the file says of these settings; ``records``: it has several groups."""
        return Header(
            model_id=bytes.fromhex(self.model.sha256)[:MODEL_ID_BYTES],
            rung=self.rung,
            coder=CODERS.index(self.coder),
            index_code=INDEX_CODES.index(self.index_code),
            num_candidates=self.num_candidates,
            seed=self.seed,
            joint=self.joint,
            records=records,
        )


def choose_settings(
    model: Model,
    *,
    rung: int | None = None,
    coder: str = "mincost",
    index_code: str | None = None,
    num_candidates: int | None = None,
    seed: int | None = None,
    joint: bool | None = False,
    apart: bool = False,
) -> Settings:
    """An encoder's settings; None takes the model's default.

    The default index code is the model's prior where it has one for this coder, seed and N, else "fitted".
    ``joint`` None is joint coding, unless min-cost has that prior and none for indices that blocks share: it
    saves more than sharing in a fitted code, and less than sharing in a prior.

    Raises:
        LimitError: a value is out of range.
    """
    rung = model.default_rung if rung is None else rung
    num_candidates = model.default_num_candidates if num_candidates is None else num_candidates
    seed = model.default_seed if seed is None else seed
    if not 0 <= rung < len(model.rungs):
        raise LimitError(f"rung {rung}: model {model.name} has rungs 0 to {len(model.rungs) - 1}")
    if not 1 <= num_candidates <= MAX_CANDIDATES:
        raise LimitError(f"{num_candidates} candidates: must be 1 to {MAX_CANDIDATES}")
    if not 0 <= seed <= MAX_SEED:
        raise LimitError(f"seed {seed}: must be an unsigned 64-bit integer")
    if index_code is None:
        prior = _has_prior(model, rung, coder, seed, num_candidates)
        index_code = "prior" if prior else "fitted"
    for name, value, known in (("coder", coder, ONE_SHOT_CODERS), ("index code", index_code, INDEX_CODES)):
        if value not in known:
            raise LimitError(f"{name} {value!r}: must be one of {', '.join(known)}")
    if joint is None:
        joint = (coder, index_code) != ("mincost", "prior") or _has_joint_prior(model, rung, coder)
    return Settings(model, rung, coder, index_code, num_candidates, seed, joint, apart)


def read_settings(header: Header, model: Model) -> Settings:
    """A decoder's settings.

    Raises:
        ModelError: the file was made with another model. FormatError: the model has no such rung.
    """
    if bytes.fromhex(model.sha256)[:MODEL_ID_BYTES] != header.model_id:
        raise wrong_model(header.model_id, model.name, model.sha256)
    if header.rung >= len(model.rungs):
        raise FormatError(f"rung {header.rung}, but model {model.name} has {len(model.rungs)}")
    coder, index_code = CODERS[header.coder], INDEX_CODES[header.index_code]
    return Settings(model, header.rung, coder, index_code, header.num_candidates, header.seed, header.joint)


def _has_prior(model: Model, rung: int, coder: str, seed: int, num_candidates: int) -> bool:
    return (seed, num_candidates) == (model.default_seed, model.default_num_candidates) and all(
        coder in stage.priors for stage in model.rungs[rung].stages
    )


def _has_joint_prior(model: Model, rung: int, coder: str) -> bool:
    """Whether all stages that share indices at the model's N have a prior for them."""
    n = model.default_num_candidates
    sharing = [s for s in model.rungs[rung].stages if joint_size(n, s.zipf_rate_millibits) > 1]
    return all(stage.joint is not None and coder in stage.joint.priors for stage in sharing)
