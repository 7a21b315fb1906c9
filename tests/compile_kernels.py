"""Compile every kernel to machine code for the GPU generations named here; no GPU is needed."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rcccodec.kernels import arrivals, gaussian_search, latents

GENERATIONS = (90,)
POINTERS = {
    **dict.fromkeys(("table", "cross", "square", "offsets", "scores", "runners_up"), "*fp32"),
    **dict.fromkeys(("indices",), "*i64"),
}
SCALARS = {"seed": "u64", "start": "i64", "stream": "i64"}  # the widest that a call gives them


def compile_for_all(name: str, kernel: triton.JITFunction, out: str, constants: dict[str, object]) -> None:
    types = {"out": out, **POINTERS, **SCALARS, **dict.fromkeys(constants, "constexpr")}
    signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
    for generation in GENERATIONS:
        made = triton.compile(ASTSource(kernel, signature, constants), GPUTarget("cuda", generation, 32))
        assert made.asm["cubin"], name
    print(name)


compile_for_all("normals", latents._normals, "*fp32", {"CANDIDATES": 64, "BLOCKS": 4})
compile_for_all("gaps", arrivals._gaps, "*fp64", {"CANDIDATES": 512})
tile = {"TILE": 16, "STEP": 64, "PER_PROGRAM": 2048, "DIMS": 16, "PRECISION": "ieee"}
compile_for_all("search", gaussian_search._search, "*fp32", tile)
