"""Starting a command on the machines of a pod or a cluster."""
