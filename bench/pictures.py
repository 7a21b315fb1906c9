"""Rows of small pictures with a caption each, as one image file."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rcccodec.images import write_image

GAP, CAPTION, ZOOM = 2, 14, 2  # pixels, pixels, pixels a pixel


def picture_rows(rows: list[tuple[str, list[np.ndarray]]], path: Path) -> None:
    """Write the pictures, uint8 (h, w) or (h, w, 3) of one size, each row below its caption."""
    height, width = (side * ZOOM for side in rows[0][1][0].shape[:2])
    columns = max(len(pictures) for _, pictures in rows)
    font = ImageFont.load_default()
    across = max(columns * (width + GAP) + GAP, *(int(font.getlength(c)) + 2 * GAP for c, _ in rows))
    canvas = Image.new("RGB", (across, len(rows) * (height + CAPTION + GAP) + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (caption, pictures) in enumerate(rows):
        top = GAP + number * (height + CAPTION + GAP)
        draw.text((GAP, top), caption, fill="black", font=font)
        for column, picture in enumerate(pictures):
            large = Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
            place = GAP + column * (width + GAP), top + CAPTION
            canvas.paste(large.resize((width, height), Image.Resampling.NEAREST), place)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.asarray(canvas))
