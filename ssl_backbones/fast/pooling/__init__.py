"""ROIAlign over a feature pyramid on several cores, in a pooler that takes Detectron2's place.

Equals `ROIPooler` but for rounding, and its gradients are nearer to float64's. Left to `ROIPooler`: GPUs and
types other than float32, other poolings and sampling ratios, odd boxes, tracing; everything without numba.
"""
