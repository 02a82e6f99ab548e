"""Lists the files of a corpus, and checks the inputs of a run without the heavy libraries of the steps."""
