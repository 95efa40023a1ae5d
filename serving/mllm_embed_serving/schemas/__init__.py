"""Dialects: JSON -> checked request, vectors -> JSON; one file each over what they share (`common`)."""
