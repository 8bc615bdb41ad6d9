"""Networks: teachers, students, networks for small images, and their fused forms for recovery.

Building, loading and training networks belongs here; the optimisation of images is in `recovery`. Importing this
package registers our networks with timm; cards of students tell their readers to do so.
"""

from fadrm_hf.networks import small_images as small_images
