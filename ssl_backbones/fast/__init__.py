"""Parts for speed: each says what it equals, and when it leaves the work to Detectron2 or pycocotools."""
