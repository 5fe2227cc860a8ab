"""Parts for speed that take the place of Detectron2's own, or of pycocotools.

Each room says what it equals and when it leaves the work to stock. One rule holds in all of them: with numba,
or the library of the part, the fast way; without it, and for what is unusual, stock. There is no slow way of
ours beside it. `acceleration` finds the libraries and says once in the log which one is missing.
"""
