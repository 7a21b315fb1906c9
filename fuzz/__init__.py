"""Hostile input: seeded mutations and coverage-guided fuzzing of all that reads bytes. See README.md."""
