"""What people see of an artifact: card, gallery, pictures, notebook display; enters nothing that computes one."""
