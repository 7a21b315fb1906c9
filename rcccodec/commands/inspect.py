"""``rcc info``, ``rcc models`` and ``rcc samples``: what a file holds, what there is, what a model draws."""

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from rcccodec.commands import console
from rcccodec.description import DAMAGE, printable
from rcccodec.errors import ModelError
from rcccodec.model_search import MAX_RUNGS

if TYPE_CHECKING:
    from rcccodec.container import Group


@click.command(
    epilog=console.examples("rcc info photo.rcc", "rcc info photo.rcc --json", "rcc info - < photo.rcc")
)
@click.argument("source", metavar="INPUT")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(source: str, as_json: bool) -> None:
    """Say what a .rcc file holds, without decoding it. The checksum is verified; the model may be missing."""
    data = console.read_input(source)
    with console.about(source):
        facts = file_facts(data)
    if as_json:
        console.say(json.dumps(facts, indent=2))
        return
    sizes = [
        f"{group['count']} x " * (group["count"] > 1) + f"{group['width']}x{group['height']} {group['mode']}"
        for group in facts["images"]
    ]
    shown = {**facts, "images": "; ".join(sizes), "model": _model_line(facts)}
    del shown["model_status"]
    console.say("\n".join(f"{key.replace('_', ' '):<16}{value}" for key, value in shown.items()))


def file_facts(data: bytes) -> dict[str, Any]:
    """The documented keys of ``rcc info --json``.

    Of a file of latents ``rung`` and ``tiles`` (of 256x256 pixels) instead of ``index_code``, and ``states``
    of a trellis instead of ``num_candidates``.

    ``images`` lists runs of equal images: count, width, height, mode. ``model_status`` is "installed", "not
    installed" or "an earlier release, not installed". Of a model that is neither installed nor was ever
    published ``model`` is None and ``model_sha256`` the few bytes of it that the file has.

    Raises:
        FormatError: ``data`` is not a whole ``.rcc`` file.
    """
    from rcccodec import container
    from rcccodec.model_search import identify

    header, groups = container.unpack(data)
    model = identify(header.model_id)
    coder = container.CODERS[header.coder]
    method: dict[str, Any] = {"coder": coder}
    if header.latent:
        method |= {"rung": header.rung, "seed": header.seed, "tiles": _tiles(groups)}
    else:
        method |= {"index_code": container.INDEX_CODES[header.index_code], "seed": header.seed}
    method["states" if coder == "trellis" else "num_candidates"] = header.num_candidates
    return {
        "format_version": header.version,
        "model": model.name,
        "model_sha256": model.sha256,
        "model_status": "an earlier release, " * model.earlier + "not " * (not model.folder) + "installed",
        **method,
        "images": [
            {"count": sum(g.count for g in run), "width": w, "height": h, "mode": container.MODES[mode]}
            for (w, h, mode), run in groupby(groups, key=lambda g: (g.width, g.height, g.mode))
        ],
        "payload_bits": 8 * sum(len(group.payload) for group in groups),
        "file_bytes": len(data),
    }


def _model_line(facts: dict[str, Any]) -> str:
    status = [] if facts["model_status"] == "installed" else [facts["model_status"]]
    return ", ".join([facts["model"]] * bool(facts["model"]) + status)


def _tiles(groups: "list[Group]") -> int:
    """Tiles of all images of a file of latents."""
    from rcccodec.latent.spec import LATENT_STRIDE, TILE

    side = TILE * LATENT_STRIDE
    return sum(g.count * -(-g.width // side) * -(-g.height // side) for g in groups)


@click.command(epilog=console.examples("rcc models", "rcc models --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(as_json: bool) -> None:
    """List the models that are installed, with their ladders; of a damaged one, a warning is all there is."""
    from rcccodec.bundle import MAX_WEIGHTS_BYTES, WEIGHTS
    from rcccodec.model_search import list_models, model_path, parse_card, read_weights

    cards, ladders = {}, []
    for name in list_models():
        try:
            card, sha256 = parse_card(model_path(name))
            card["sha256"] = sha256
            ladder = _ladder(name, card)
            read_weights(model_path(name) / WEIGHTS, card, MAX_WEIGHTS_BYTES)
            ladders.append(ladder)
            cards[name] = card
        except ModelError as error:
            console.remark(f"warning: {error}", quiet=False)
        except DAMAGE:
            console.remark(f"warning: {model_path(name)}: damaged model description", quiet=False)
    if as_json:
        console.say(json.dumps(cards, indent=2))
    else:
        console.say("\n".join(ladders) if ladders else "no models are installed")


def _ladder(name: str, card: dict[str, Any]) -> str:
    """Lines about a model whose description is a stranger's: what is no number is made fit to print."""
    is_latent = card.get("kind") == "latent"
    if len(card["held_out" if is_latent else "rungs"]) > MAX_RUNGS:
        raise ValueError("more rungs than a model can have")
    about = f"trained on {printable(card['source'], 60)}"
    if is_latent:
        return _latent_ladder(f"{printable(name)}: colour, {about}", card)
    lines = [
        f"{printable(name)}: {'colour' if card['channels'] == 3 else 'grey'}, {about}, "
        f"N {card['default_num_candidates']:d}, {card['sha256'][:12]}"
    ]
    for number, rung in enumerate(card["rungs"]):
        stages = ", ".join(
            f"{s['block'][0]:d}x{s['block'][1]:d} R {s['rate_bits']:.2f} bits D {s['distortion']:.3f}"
            + (f" ({s['joint']['blocks']:d} may share an index)" if s.get("joint") else "")
            for s in rung["stages"]
        )
        mark = "  default" if number == card["default_rung"] else ""
        lines.append(f"  rung {number:<2} beta {rung['beta']:<8g} {stages}{mark}")
    return "\n".join(lines)


def _latent_ladder(about: str, card: dict[str, Any]) -> str:
    lines = [f"{about}, latents, {card['sha256'][:12]}; payloads of held-out pictures:"]
    for number, row in enumerate(card["held_out"]):
        mark = "  default" if number == card["default_rung"] else ""
        lines.append(
            f"  rung {number:<2} beta {row['beta']:<8.4g} {row['rate_bpp']:.4f} bpp, {row['psnr_db']:.2f} dB"
            f"{mark}"
        )
    return "\n".join(lines)


@click.command(
    epilog=console.examples(
        "rcc samples mnist -o grid.png", "rcc samples photo -o grid.png --count 4 --seed 7"
    )
)
@click.argument("model")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    callback=console.output_name,
    help="Image to write; - is PNG on standard output.",
)
@click.option("--beta", type=float, help="Slope; the nearest rung is taken. Default: the model's rung.")
@click.option("--count", type=click.IntRange(1, 4096), default=64, show_default=True, help="Draws.")
@click.option("--seed", type=int, help="Common randomness. Default: the model's.")
@click.option("--no-overwrite", is_flag=True, help="Fail if OUT exists.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def samples(
    model: str, output: str, beta: float | None, count: int, seed: int | None, no_overwrite: bool, quiet: bool
) -> None:
    """Draw from a model's Q_Y, the law of its reconstructions, as a grid of tiles.

    Of a model of latents: the classes of a tile of 256x256 pixels from their code, latents from the Gaussians
    of those classes, and the picture that these make.
    """
    import numpy as np

    from rcccodec import codec, ladder
    from rcccodec.atomic import check_target, sweep, write_stdout
    from rcccodec.bundle import load_model
    from rcccodec.images import check_ending, image_bytes, write_image

    if output != console.STANDARD_STREAM:
        check_ending(output)
        check_target(output, overwrite=not no_overwrite)
        sweep([output])
    bundle = load_model(model)
    rung = None if beta is None else ladder.rung_of_slope([r.beta for r in bundle.rungs], beta)
    tiles = codec.draw_samples(bundle, rung, count, seed)
    columns = int(np.ceil(np.sqrt(count)))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-count % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    grid = np.concatenate(rows, axis=0)
    if output == console.STANDARD_STREAM:
        write_stdout(image_bytes(grid, ".png"))
    else:
        write_image(output, grid, overwrite=not no_overwrite)
        if not quiet:
            console.say(f"written: {output}")
