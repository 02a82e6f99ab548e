"""Real YARN for a cluster of the embedded EMR: a ResourceManager, and NodeManagers on several hosts.

A host is a network namespace with an address, a name, a hosts file, a /tmp and an /opt of its own (Linux, root). The
daemons are Hadoop's own, from jars that are pinned by hash. The command of a step is not changed. Daemons, containers
and drivers run as an unprivileged user.

`hosts` makes the namespaces. `view` decides which files of this machine a host sees. `jars` finds Hadoop, and `shuffle`
compiles Spark's shuffle service. `configuration` writes the configuration files of an EMR node. `cluster` starts the
daemons, with the help of the other modules.
"""
