"""Photographs through a learned Gaussian channel: transforms, classes, trellis and chunks, files."""
