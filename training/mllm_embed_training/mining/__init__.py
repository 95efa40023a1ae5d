"""`mllm-embed mine`: hard negatives for the rows of a data set, found by a model among the entries of a corpus."""
