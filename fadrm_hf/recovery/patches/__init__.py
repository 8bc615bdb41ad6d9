"""Starting images: what makes real crops, whole images, mosaics or noise of a source may enter."""
