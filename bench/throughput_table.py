"""The table that ``throughput.py`` prints."""

from typing import Any


def table(result: dict[str, Any]) -> list[str]:
    """The printed table."""
    lines = [f"{name:<18} {rate / 1e9:10.1f} G/s" for name, rate in result.get("peaks", {}).items()]
    for row in result.get("generators", []):
        times = "  ".join(
            f"{kind} {1e6 * row[kind]['s']:.1f} us ({row[kind]['share_of_roofline']:.0%})"
            for kind in ("bfloat16", "float32", "float64")
        )
        s = row["search"]
        lines.append(
            f"{row['generator']:<24} {row['flops_per_candidate'] / 1e6:6.2f} MFLOP  {times}\n{'':<24} search "
            f"{1e-3 * s['candidates_per_s']:.1f} k/s, {1e-6 * s['block_candidates_per_s']:.1f} M block-"
            f"candidates/s; random {s['random_share']:.0%}, generator {s['generator_share']:.0%}, "
            f"search {s['search_share']:.0%}"
        )
    for row in result.get("plain", []):
        bar = "" if row["bar"] is None else f" (bar {row['bar']:g})"
        lines.append(
            f"{row['generator']:<24} {row['images']:6d} images: {row['images_per_s']:.2f}/s, plain "
            f"{row['plain_images_per_s']:.2f}/s, ratio {row['ratio']:.1f}{bar}; to own DCGAN "
            f"{row['ratio_to_dcgan']:.1f}, to plain DCGAN {row['ratio_to_plain_dcgan']:.1f}"
        )
    for row in result.get("exact", []):
        lines.append(
            f"{row['generator']:<24} {row['blocks']} blocks, N = {row['num_candidates']}: indices "
            f"unlike float64 brute force: {row['indices_that_differ']}"
        )
    if row := result.get("memory"):
        lines.append(
            f"memory: {row['images']} images at N = {row['num_candidates']}: {row['peak_mib']:.0f} MiB "
            f"(bar {row['bar']:.0f}), {row['s']:.0f} s"
        )
    for row in result.get("decode", []):
        lines.append(
            f"decoding {row['images']} images at N = {row['num_candidates']}: {row['s']:.3f} s "
            f"(bar {row['bar']:g})"
        )
    return lines
