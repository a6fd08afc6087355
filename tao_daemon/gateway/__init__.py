"""The data plane: clients ask the public model name, an adapter version answers."""
