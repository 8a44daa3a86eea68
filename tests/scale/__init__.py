"""How one nats-server bears many nodes: light clients that do what a node does on the bus, measured from outside."""
