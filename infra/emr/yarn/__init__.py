"""A real YARN for a cluster of the embedded EMR: one ResourceManager, and a NodeManager on each of its hosts.

A host is a network namespace with an address, a name, a hosts file, a /tmp and an /opt of its own (Linux, root). The
daemons are Hadoop's own, from jars that are pinned by hash. Steps run as they were sent. Daemons, containers and
drivers run as a user without rights.

`hosts` makes the namespaces, `view` what a host sees of this machine's files, `jars` finds Hadoop, `configuration`
writes the files that a node of EMR has, `daemons` starts processes, and `cluster` puts them together.
"""
