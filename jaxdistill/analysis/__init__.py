"""Numbers and figures about trained networks of any method.

Every module has functions that compute numbers and a function `draw` that makes
a matplotlib figure of them, which a notebook shows and `savefig` stores:

- `curves`: scores of the rows in a work directory, or over its epochs.
- `detections`: images with the boxes that models find.
- `diversity`: how diverse a network's outputs are, and confidence intervals.
- `embedding`: features in the plane, by t-SNE.
- `gradient_noise`: how much gradient norms change from batch to batch.
- `landscape`: the loss around a network along two random directions.
- `maps`: images with their true and their predicted masks or depths.
- `verification`: ROC curves of embeddings, and pairs on which models disagree.
"""
