"""The lake: URIs, the names of its folders and files, objects, manifests."""
