"""Networks: teachers, students, networks for small images, and their fused forms for recovery.

What builds, loads or trains a network by itself may enter, and nothing that optimises images. Importing the room
registers with timm the networks that it lacks, which is what the cards of students ask their readers to do.
"""

from fadrm_hf.networks import small_images as small_images
