"""Stages of the way: one file each, run folder in, run folder and record out; the command line is their shell."""
