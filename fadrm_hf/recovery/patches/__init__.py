"""Starting images: real crops, whole images, mosaics or noise."""
