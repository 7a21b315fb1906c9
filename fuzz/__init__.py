"""Hostile input: seeded mutations and coverage-guided fuzzing of everything that reads bytes. See README.md."""
