"""Students: their networks, settings and updates, alone or by several processes."""
