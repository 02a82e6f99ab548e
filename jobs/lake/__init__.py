"""The lake: its URIs, names, files and manifests."""
