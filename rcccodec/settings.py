"""How a file is coded: model, rung, coder, index code, N and seed, checked once and for all."""

from dataclasses import dataclass

from rcccodec.bundle import Model, Rung
from rcccodec.container import CODERS, INDEX_CODES, MAX_SEED, MODEL_ID_BYTES, Header
from rcccodec.errors import FormatError, LimitError, ModelError
from rcccodec.index_code import IndexCode
from rcccodec.index_code.fitted import FittedCode
from rcccodec.index_code.zipf_huffman import ZipfHuffman
from rcccodec.layout import Block, tile_size

MAX_CANDIDATES = 1 << 24  # that an encoder searches; a file may say more


@dataclass(frozen=True)
class Settings:
    """Everything an encoder and its decoder agree on.

    coder: one of CODERS. index_code: one of INDEX_CODES. num_candidates: N. seed: unsigned 64-bit.
    """

    model: Model
    rung: int
    coder: str
    index_code: str
    num_candidates: int
    seed: int

    @property
    def step(self) -> Rung:
        """The rung of the model's ladder."""
        return self.model.rungs[self.rung]

    @property
    def tile(self) -> Block:
        """Smallest rectangle that the blocks of all stages divide."""
        return tile_size([stage.block for stage in self.step.stages])

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

    def header(self) -> Header:
        """What the file says of these settings."""
        return Header(
            model_id=bytes.fromhex(self.model.sha256)[:MODEL_ID_BYTES],
            rung=self.rung,
            coder=CODERS.index(self.coder),
            index_code=INDEX_CODES.index(self.index_code),
            num_candidates=self.num_candidates,
            seed=self.seed,
        )


def choose_settings(
    model: Model,
    *,
    rung: int | None = None,
    coder: str = "mincost",
    index_code: str | None = None,
    num_candidates: int | None = None,
    seed: int | None = None,
) -> Settings:
    """An encoder's settings; None takes the model's default.

    The default index code is the model's prior where it has one for this coder, seed and N, else "fitted".

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
    for name, value, known in (("coder", coder, CODERS), ("index code", index_code, INDEX_CODES)):
        if value not in known:
            raise LimitError(f"{name} {value!r}: must be one of {', '.join(known)}")
    return Settings(model, rung, coder, index_code, num_candidates, seed)


def read_settings(header: Header, model: Model) -> Settings:
    """A decoder's settings.

    Raises:
        ModelError: the file was made with another model. FormatError: the model has no such rung.
    """
    if bytes.fromhex(model.sha256)[:MODEL_ID_BYTES] != header.model_id:
        raise ModelError(
            f"made with another model ({header.model_id.hex()}) than {model.name} ({model.sha256[:12]})"
        )
    if header.rung >= len(model.rungs):
        raise FormatError(f"rung {header.rung}, but model {model.name} has {len(model.rungs)}")
    coder, index_code = CODERS[header.coder], INDEX_CODES[header.index_code]
    return Settings(model, header.rung, coder, index_code, header.num_candidates, header.seed)


def _has_prior(model: Model, rung: int, coder: str, seed: int, num_candidates: int) -> bool:
    return (seed, num_candidates) == (model.default_seed, model.default_num_candidates) and all(
        coder in stage.priors for stage in model.rungs[rung].stages
    )
