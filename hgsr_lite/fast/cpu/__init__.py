"""Loops over weights that numba compiles for the processor at hand. Imported by `plan` only when needed."""
