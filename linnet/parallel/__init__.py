"""Many devices: meshes, rules from logical axes to mesh axes, several processes."""

__all__: list[str] = []
