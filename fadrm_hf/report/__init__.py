"""What people see of an artifact: card, gallery, pictures, notebook display; nothing here computes a result."""
