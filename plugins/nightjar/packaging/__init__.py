"""Build what runs on the cluster: the packaged job, its wheels, and the scripts that install and start it."""
