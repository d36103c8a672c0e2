"""Detection: the boxes and classes of the objects in an image.

task.py: the task of detectors that score anchors.
two_stage.py: the task of detectors that score regions.
assignment.py: which anchors learn which boxes.
sampling.py: which anchors and regions of an image count in the loss.
suppression.py: finds the objects among the scores and boxes of anchors.
average_precision.py: the metrics of COCO.
pycoco.py: the same metrics, computed by pycocotools.
coco_results.py: detections as a results file of COCO.
"""
