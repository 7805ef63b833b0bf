"""Providers: whatever says something about a picture, each with a name, a version, and limits of its own."""
