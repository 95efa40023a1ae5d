"""Routes, one file per dialect; none of them catches an error."""
