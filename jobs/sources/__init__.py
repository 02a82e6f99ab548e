"""The files of a corpus: their names, the listing, and the check that they are UTF-8."""
