"""Task types, metrics, loaders, runner, report: what a set of vectors is worth."""
