"""``rcc bench``: this codec beside other codecs and theory, on the same images in the same run."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import click

from rcccodec.atomic import check_target, sweep, write_bytes
from rcccodec.commands import console

PLOT_ENDINGS = (".png", ".svg")


def _output(context: click.Context, option: click.Parameter, name: str | None) -> Path | None:
    return None if name is None else Path(console.output_name(context, option, name))


def _names(context: click.Context, option: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Words that commas part, but for one that is a folder."""
    parts = [[word] if os.path.isdir(word) else word.split(",") for word in words]
    names = tuple(name.strip() for some in parts for name in some)
    if not all(names):
        raise click.BadParameter("a name is empty", context, option)
    return names


def _efforts(context: click.Context, option: click.Parameter, words: tuple[str, ...]) -> tuple[int, ...]:
    names = _names(context, option, words)
    if not all(name in "123456789" and len(name) == 1 for name in names):
        raise click.BadParameter("whole numbers from 1 to 9, with commas between them", context, option)
    return tuple(int(name) for name in names)


@click.command(
    epilog=console.examples(
        "rcc bench",
        "rcc bench --against ntc --data mnist --images 1000 --json r.json --plot r.png",
        "rcc bench --data kodak --images 4 --against ntc,jpeg,webp --effort 1,5 --report kodak.html",
        "rcc bench --data mnist --against ecsq --against ba --coder pfr --index-code zipf --seeds 5",
        "rcc bench --data mnist --against runs/my-ntc --models runs/my-model",
    )
)
@click.option(
    "--against",
    multiple=True,
    callback=_names,
    metavar="REFERENCE",
    help="ntc, ntc-block (learned transform coding; on small images its encoder searches, as this codec's "
    "does), ntc-plain, ntc-block-plain (it only rounds), jpeg, webp, ecsq (KLT and scalar quantiser), ba "
    "(Blahut-Arimoto), or the folder of a baseline of your own; several with commas, or repeated. "
    "Default: ecsq; jpeg and webp for photographs.",
)
@click.option(
    "--data", metavar="SOURCE", help="A data set, folder or image; its test split. Default: embedded digits."
)
@click.option("--data-root", envvar="RCC_DATA", help="Where the standard data sets are. Default: $RCC_DATA.")
@click.option(
    "--models", multiple=True, metavar="MODEL", help="Name or folder; repeatable. Default: by the images."
)
@click.option(
    "--images", type=click.IntRange(min=1), help="How many. Default: 1000 small ones or 4 photographs."
)
@click.option(
    "--coder",
    "coders",
    multiple=True,
    type=click.Choice(["trellis", "pfr", "orc", "mincost"]),
    help="Repeatable. Default: trellis for models of latents (photo), the only ones that have it; "
    "else all three others; mincost and pfr for the embedded digits, mincost for photographs.",
)
@click.option(
    "--effort",
    "efforts",
    multiple=True,
    callback=_efforts,
    metavar="1-9",
    help="Of models of latents, a curve each; several with commas, or repeated. Default: 5.",
)
@click.option(
    "--index-code",
    type=click.Choice(["zipf", "fitted", "prior"]),
    help="Default: as rcc compress chooses for each coder.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1, 1 << 24),
    help="N, or states of a trellis, instead of an effort. Default: the model's.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Codebooks to average over. Default: 3; 1 for photographs and for the embedded sample.",
)
@click.option("--json", "json_path", metavar="OUT", callback=_output, help="Results; see below.")
@click.option("--plot", "plot_path", metavar="OUT", callback=_output, help="Figure, .svg or .png.")
@click.option("--report", "report_path", metavar="OUT", callback=_output, help="Self-contained HTML page.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def bench(
    against: tuple[str, ...],
    data: str | None,
    data_root: str | None,
    models: tuple[str, ...],
    images: int | None,
    coders: tuple[str, ...],
    efforts: tuple[int, ...],
    index_code: str | None,
    candidates: int | None,
    seeds: int | None,
    json_path: Path | None,
    plot_path: Path | None,
    report_path: Path | None,
    device: str,
    quiet: bool,
) -> None:
    """Compare this codec with others and with theory, through real files that are decoded back.

    Small images of one size share a file and cost its payload; of photographs whole files are counted. OUT of
    --json holds this codec's first curve, OUT.KEY.json beside it one of the others each, in the layout that
    CompressAI reads: python -m compressai.utils.plot -f r.json r.*.json -o curves.png
    """
    if plot_path and plot_path.suffix.lower() not in PLOT_ENDINGS:
        raise click.UsageError(f"--plot {plot_path}: the name must end in {' or '.join(PLOT_ENDINGS)}")
    for path in filter(None, (json_path, plot_path, report_path)):
        check_target(path)
        sweep([path])

    from rcccodec.comparison import figure, html_report, results, run, table
    from rcccodec.comparison.image_set import EMBEDDED, load_image_set
    from rcccodec.comparison.summary import bjontegaard_deltas, effort_levels

    if plot_path or report_path:
        figure.require_matplotlib()
    chosen = load_image_set(data, images, Path(data_root) if data_root else None)
    for note in chosen.notes:
        console.remark(f"note: {note}", quiet)
    few = not chosen.archive or chosen.name == EMBEDDED
    plan = run.make_plan(
        chosen,
        models,
        against,
        coders=coders,
        efforts=efforts,
        index_code=index_code,
        num_candidates=candidates,
        num_seeds=seeds or (1 if few else 3),
        device=console.resolve_device(device),
        remark=lambda text: console.remark(text, quiet),
    )

    def say(line: str) -> None:
        if not quiet:
            console.say(line)

    def bar(what: str) -> AbstractContextManager:
        return console.progress_bar(what, quiet)

    comparison = run.compare(plan, say, bar)
    deltas = bjontegaard_deltas(comparison)
    for line in (*table.level_lines(effort_levels(comparison)), *table.delta_lines(deltas)):
        say(line)
    drawing = figure.figure_bytes(comparison, plot_path.suffix.lower()[1:]) if plot_path else b""
    page = html_report.report_bytes(comparison, deltas) if report_path else b""
    written = results.write_results(json_path, comparison, deltas) if json_path else []
    for path, content in ((plot_path, drawing), (report_path, page)):
        if path:
            write_bytes(path, content)
            written.append(path)
    for path in written:
        say(f"written: {path}")
