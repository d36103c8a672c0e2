"""Detection: the boxes and classes of the objects in an image.

task.py: the task.
boxes.py: boxes relative to anchors.
assignment.py: which anchors learn which boxes.
suppression.py: finds the objects among the scores and boxes of anchors.
average_precision.py: the metrics of COCO.
pycoco.py: the same by pycocotools.
coco_results.py: detections as a results file of COCO.
"""
