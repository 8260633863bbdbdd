"""Suspect models: files, opened in an isolated process, and HTTP endpoints."""
