"""What the golden files were made of: models, pictures, options.

`groups` says that a file of several groups is packed without records, as encoders did before there were any.
`by_hand` files hold indices that no search would find, in the given groups [mode, count, width, height].
"""

CANDIDATES, SEED = 256, 5
LAST_SEED = 2**64 - 1


def grey(number: int, height: int, width: int) -> dict:
    return {"number": number, "height": height, "width": width, "rgb": False}


def rgb(number: int, height: int, width: int) -> dict:
    return {**grey(number, height, width), "rgb": True}


def sample(name: str, *part: int) -> dict:
    return {"sample": name, "part": list(part)}


def recipe(model: str, sources: list[dict], groups: bool = False, **options: object) -> dict:
    return {"model": model, "sources": sources, "groups": groups, "options": options}


def by_hand(model: str, version: int, groups: list[list[int]], **header: object) -> dict:
    return {"model": model, "by_hand": {"version": version, "groups": groups, **header}}


EIGHT = [grey(i, 8, 8) for i in range(8)]
MIXED = [grey(1, 8, 8), grey(2, 8, 8), grey(3, 8, 8), grey(4, 5, 7), grey(5, 20, 9), grey(6, 1, 1)]
COLOURS = [rgb(1, 16, 8), rgb(2, 16, 8), rgb(3, 16, 8), grey(4, 16, 8), rgb(5, 33, 20), rgb(6, 7, 3)]

RECIPES: dict[str, dict] = {
    # Version 1: every coder with every index code; sizes below, at and above a block
    "v1-pfr-zipf": recipe(
        "grey",
        [grey(1, 8, 8)],
        coder="pfr",
        index_code="zipf",
        num_candidates=300,
        seed=LAST_SEED,
        joint=False,
    ),
    "v1-orc-zipf": recipe(
        "grey", [grey(2, 5, 7)], coder="orc", index_code="zipf", num_candidates=1024, seed=0, joint=False
    ),
    "v1-mincost-zipf": recipe(
        "grey",
        [grey(3, 17, 9)],
        coder="mincost",
        index_code="zipf",
        num_candidates=1000,
        seed=127,
        joint=False,
    ),
    "v1-pfr-fitted": recipe(
        "grey", [grey(4, 24, 40)], coder="pfr", index_code="fitted", num_candidates=64, seed=128, joint=False
    ),
    "v1-orc-fitted": recipe(
        "grey", [grey(5, 1, 1)], coder="orc", index_code="fitted", num_candidates=300, seed=9, joint=False
    ),
    "v1-mincost-fitted": recipe(
        "grey",
        [grey(6, 33, 8)],
        coder="mincost",
        index_code="fitted",
        num_candidates=4096,
        seed=2**63,
        joint=False,
    ),
    "v1-pfr-prior": recipe("grey", [grey(7, 8, 130)], coder="pfr", index_code="prior", joint=False),
    "v1-orc-prior": recipe("grey", [grey(8, 3, 131)], coder="orc", index_code="prior", joint=False),
    "v1-mincost-prior": recipe("grey", [grey(9, 130, 9)], coder="mincost", index_code="prior", joint=False),
    "v1-old-prior": recipe(
        "grey", [grey(10, 16, 16)], rung=1, coder="mincost", index_code="prior", joint=False
    ),
    "v1-colour-sample-in-grey": recipe(
        "grey",
        [sample("coffee.png", 100, 150, 12, 20)],
        rung=2,
        coder="mincost",
        index_code="fitted",
        joint=False,
    ),
    "v1-one-group": recipe("grey", EIGHT, coder="pfr", index_code="zipf", joint=False),
    "v1-groups": recipe("grey", MIXED, groups=True, coder="mincost", index_code="prior", joint=False),
    "v1-groups-zipf": recipe("grey", MIXED, groups=True, coder="orc", index_code="zipf", joint=False),
    "v1-one-candidate-zipf": recipe(
        "grey", [grey(11, 40, 72)], coder="pfr", index_code="zipf", num_candidates=1, joint=False
    ),
    "v1-one-candidate-fitted": recipe(
        "grey", [grey(11, 40, 72)], coder="mincost", index_code="fitted", num_candidates=1, joint=False
    ),
    "v1-two-stages": recipe(
        "colour", [rgb(12, 20, 30)], rung=0, coder="mincost", index_code="prior", joint=False
    ),
    "v1-two-stages-zipf": recipe(
        "colour", [grey(13, 16, 24)], rung=0, coder="pfr", index_code="zipf", num_candidates=777, joint=False
    ),
    "v1-three-stages": recipe(
        "colour",
        [rgb(14, 31, 17)],
        rung=1,
        coder="orc",
        index_code="fitted",
        num_candidates=2048,
        joint=False,
    ),
    "v1-colour-groups": recipe(
        "colour", COLOURS, groups=True, rung=1, coder="pfr", index_code="fitted", joint=False
    ),
    "v1-largest-n-zipf": by_hand(
        "grey",
        1,
        [[0, 1, 40, 24], [0, 9, 8, 8]],
        coder="mincost",
        index_code="zipf",
        num_candidates=2**40,
        seed=1,
    ),
    "v1-largest-n-fitted": by_hand(
        "grey", 1, [[0, 1, 40, 24]], coder="pfr", index_code="fitted", num_candidates=2**40, seed=LAST_SEED
    ),
    "v1-longest-n-zipf": by_hand(
        "colour", 1, [[1, 1, 40, 24]], coder="orc", index_code="zipf", num_candidates=2**40 - 1, seed=2**35
    ),
    "v1-longest-n-fitted": by_hand(
        "grey", 1, [[0, 20, 8, 8]], coder="orc", index_code="fitted", num_candidates=2**40 - 1, seed=2**35
    ),
    "v1-64-blocks-zipf": by_hand(
        "grey", 1, [[0, 1, 64, 64]], coder="pfr", index_code="zipf", num_candidates=1, seed=0
    ),
    "v1-64-blocks-fitted": by_hand(
        "grey", 1, [[0, 1, 64, 64]], coder="pfr", index_code="fitted", num_candidates=1, seed=0
    ),
    "v1-all-zero": by_hand(
        "grey",
        1,
        [[0, 1, 160, 80]],
        coder="mincost",
        index_code="fitted",
        num_candidates=2,
        seed=0,
        indices="zero",
    ),
    "v1-every-level": by_hand(
        "grey",
        1,
        [[0, 1, 64, 64]],
        coder="mincost",
        index_code="prior",
        num_candidates=CANDIDATES,
        seed=SEED,
        rung=3,
    ),
    "v1-130-images": by_hand(
        "grey", 1, [[0, 130, 8, 8]], coder="mincost", index_code="prior", num_candidates=CANDIDATES, seed=SEED
    ),
    # Version 2: shared indices, the three cases of their tables
    "v2-zipf": recipe("grey", EIGHT[:7], coder="pfr", index_code="zipf", num_candidates=4096, joint=True),
    "v2-no-joint-tables": recipe(
        "grey",
        EIGHT[:5],
        coder="mincost",
        index_code="fitted",
        num_candidates=3000,
        seed=LAST_SEED,
        joint=True,
    ),
    "v2-prior-without-joint-tables": recipe("grey", EIGHT[:5], coder="orc", index_code="prior", joint=True),
    "v2-joint-prior": recipe("colour", [rgb(20, 33, 40)], coder="mincost", index_code="prior", joint=True),
    "v2-joint-fitted-with-prior": recipe(
        "colour", [rgb(21, 17, 33)], coder="pfr", index_code="prior", joint=True
    ),
    "v2-nearest-with-prior": recipe("colour", COLOURS[:3], coder="orc", index_code="prior", joint=True),
    "v2-joint-fitted": recipe("colour", COLOURS[:3], coder="mincost", index_code="fitted", joint=True),
    "v2-joint-fitted-other-seed": recipe(
        "colour", COLOURS[:3], coder="pfr", index_code="fitted", seed=77, joint=True
    ),
    "v2-joint-and-nearest-fitted": recipe(
        "colour", COLOURS[:3], coder="orc", index_code="fitted", joint=True
    ),
    "v2-nearest-fitted": recipe(
        "colour", COLOURS[:3], coder="mincost", index_code="fitted", num_candidates=5000, joint=True
    ),
    "v2-one-stage-shares": recipe(
        "colour",
        [grey(22, 40, 40)],
        rung=1,
        coder="mincost",
        index_code="fitted",
        num_candidates=2048,
        joint=True,
    ),
    "v2-groups": recipe("colour", COLOURS, groups=True, coder="mincost", index_code="prior", joint=True),
    "v2-groups-zipf": recipe("grey", MIXED, groups=True, coder="pfr", index_code="zipf", joint=True),
    # 1000 log2 N, rounded down, is 10499 and 10500: with R = 2500 two and three blocks share an index
    "v2-all-but-three-share": by_hand(
        "grey", 2, [[0, 8, 8, 8]], coder="pfr", index_code="zipf", num_candidates=1448, seed=SEED
    ),
    "v2-just-three-share": by_hand(
        "grey", 2, [[0, 8, 8, 8]], coder="pfr", index_code="fitted", num_candidates=1449, seed=SEED
    ),
    "v2-sixteen-share": by_hand(
        "colour", 2, [[1, 37, 8, 16]], coder="orc", index_code="zipf", num_candidates=2**40, seed=SEED
    ),
    "v2-sixteen-share-fitted": by_hand(
        "colour", 2, [[1, 37, 8, 16]], coder="orc", index_code="fitted", num_candidates=2**40 - 1, seed=SEED
    ),
    "v2-all-zero": by_hand(
        "colour",
        2,
        [[0, 64, 8, 16]],
        coder="mincost",
        index_code="fitted",
        num_candidates=2**40,
        seed=0,
        indices="zero",
    ),
    # Version 3: latents
    "v3-trellis": recipe("latent", [rgb(30, 48, 32)], rung=0, num_candidates=256),
    "v3-trellis-grey": recipe("latent", [grey(31, 40, 50)], rung=1, num_candidates=64, seed=0),
    "v3-trellis-one-pixel": recipe("latent", [rgb(32, 1, 1)], rung=1, effort=1, seed=LAST_SEED),
    "v3-trellis-tiles": recipe("latent", [rgb(33, 272, 20)], rung=0, effort=1),
    "v3-trellis-four-tiles": recipe("latent", [grey(34, 257, 258)], rung=0, num_candidates=64),
    "v3-trellis-effort": recipe("latent", [rgb(35, 30, 30)], rung=1, effort=5),
    "v3-trellis-one-group": recipe(
        "latent", [rgb(i, 20, 17) for i in (36, 37, 38)], rung=0, effort=1, apart=False
    ),
    "v3-trellis-groups": recipe(
        "latent", [rgb(39, 16, 16), grey(40, 16, 16), rgb(41, 33, 16)], groups=True, effort=1
    ),
    "v3-pfr": recipe("latent", [rgb(42, 32, 32)], rung=0, coder="pfr", num_candidates=256),
    "v3-orc": recipe("latent", [rgb(43, 17, 33)], rung=1, coder="orc", effort=1, seed=300),
    "v3-mincost": recipe("latent", [grey(44, 32, 50)], rung=1, coder="mincost", effort=1),
    "v3-mincost-tiles": recipe("latent", [grey(45, 16, 300)], rung=0, coder="mincost", num_candidates=64),
    "v3-pfr-groups": recipe("latent", [rgb(46, 16, 16), rgb(47, 16, 16)], groups=True, coder="pfr", effort=1),
    "v3-most-states": by_hand(
        "latent",
        3,
        [[1, 1, 32, 32]],
        coder="trellis",
        index_code="zipf",
        num_candidates=2**20,
        seed=LAST_SEED,
    ),
    "v3-states-of-17": by_hand(
        "latent", 3, [[1, 1, 20, 32]], coder="trellis", index_code="zipf", num_candidates=2**17, seed=2
    ),
    "v3-states-of-16": by_hand(
        "latent",
        3,
        [[0, 2, 16, 32]],
        coder="trellis",
        index_code="zipf",
        num_candidates=2**16,
        seed=2,
        measure=255,
    ),
    "v3-largest-n": by_hand(
        "latent",
        3,
        [[1, 1, 32, 32]],
        coder="pfr",
        index_code="zipf",
        num_candidates=2**40,
        seed=LAST_SEED,
        measure=120,
    ),
    "v3-small-chunks": by_hand(
        "latent",
        3,
        [[1, 1, 96, 96]],
        coder="mincost",
        index_code="zipf",
        num_candidates=2**6,
        seed=2,
        measure=1,
        indices="zero",
    ),
    "v3-chunks-of-7": by_hand(
        "latent",
        3,
        [[1, 1, 64, 64]],
        coder="orc",
        index_code="zipf",
        num_candidates=2**10,
        seed=2,
        measure=28,
    ),
    "v3-chunks-of-9": by_hand(
        "latent",
        3,
        [[1, 1, 64, 64]],
        coder="pfr",
        index_code="zipf",
        num_candidates=2**12,
        seed=2,
        measure=38,
    ),
    "v3-more-than-64-a-bit": by_hand(
        "latent",
        3,
        [[1, 1, 64, 64]],
        coder="trellis",
        index_code="zipf",
        num_candidates=2**9,
        seed=4,
        measure=1,
    ),
    # its expected bits, in 64000ths, are 148 more than 344 whole ones: they take 345
    "v3-just-another-bit": by_hand(
        "latent",
        3,
        [[0, 1, 80, 80]],
        coder="trellis",
        index_code="zipf",
        num_candidates=64,
        seed=4,
        measure=77,
    ),
    "v3-large-chunks": by_hand(
        "latent",
        3,
        [[1, 1, 96, 96]],
        coder="orc",
        index_code="zipf",
        num_candidates=2**40,
        seed=2,
        measure=255,
    ),
    # Versions 4 to 6: records
    "v4-shared-records": recipe("grey", MIXED, coder="mincost", index_code="prior", joint=False),
    "v4-apart": recipe(
        "grey", MIXED, coder="pfr", index_code="zipf", seed=LAST_SEED, joint=False, apart=True
    ),
    "v4-orc-fitted": recipe("grey", MIXED, coder="orc", index_code="fitted", num_candidates=300, joint=False),
    "v4-colour": recipe("colour", COLOURS, rung=1, coder="mincost", index_code="fitted", joint=False),
    "v5-shared-records": recipe("colour", COLOURS, coder="mincost", index_code="prior", joint=True),
    "v5-apart": recipe("colour", COLOURS, coder="orc", index_code="fitted", joint=True, apart=True),
    "v5-zipf": recipe("grey", MIXED, coder="pfr", index_code="zipf", num_candidates=4096, joint=True),
    "v6-apart": recipe("latent", [rgb(60, 20, 17), rgb(61, 20, 17), grey(62, 20, 17)], rung=0, effort=1),
    "v6-shared-records": recipe(
        "latent", [rgb(60, 20, 17), rgb(61, 20, 17), grey(62, 20, 17)], rung=0, effort=1, apart=False
    ),
    "v6-tiles": recipe("latent", [rgb(63, 16, 270), rgb(64, 16, 16)], rung=1, num_candidates=64),
    "v6-pfr": recipe("latent", [rgb(65, 16, 16), rgb(66, 16, 16)], coder="pfr", num_candidates=64),
    "v6-orc": recipe("latent", [rgb(67, 16, 16), grey(68, 40, 16)], coder="orc", num_candidates=64),
    "v6-mincost": recipe("latent", [rgb(69, 16, 16), grey(70, 40, 16)], coder="mincost", num_candidates=64),
    # The shipped models
    "mnist": recipe("mnist", [sample("digit.png", 0, 0, 32, 32)]),
    "mnist-pfr-two": recipe(
        "mnist",
        [sample("digit.png", 0, 0, 32, 32), sample("digit.png", 2, 1, 28, 30)],
        rung=0,
        coder="pfr",
        num_candidates=4096,
    ),
    "mnist-orc-shared": recipe(
        "mnist", [grey(i, 32, 32) for i in (80, 81, 82, 83)], rung=0, coder="orc", num_candidates=4096
    ),
    "photo": recipe("photo", [sample("coffee.png", 80, 100, 64, 96)], effort=1),
    "photo-archive": recipe(
        "photo", [sample("rocket.png", 40, 60, 48, 48), rgb(83, 17, 33)], rung=0, effort=1
    ),
    "photo-mincost": recipe(
        "photo", [sample("coffee.png", 80, 100, 32, 32)], rung=1, coder="mincost", effort=1
    ),
    "photo-512-a-chunk": by_hand(
        "photo",
        3,
        [[0, 1, 64, 64]],
        coder="pfr",
        index_code="zipf",
        num_candidates=2**40,
        seed=1,
        rung=1,
        measure=255,
        one_class=127,
    ),
    # one chunk has 499 thousandths more than whole bits
    "photo-half-a-bit": by_hand(
        "photo",
        3,
        [[0, 1, 64, 64]],
        coder="orc",
        index_code="zipf",
        num_candidates=64,
        seed=1,
        measure=24,
    ),
    "photo-pixels": recipe("photo-pixels", [sample("coffee.png", 80, 100, 40, 56)], num_candidates=4096),
}
