"""From a run to one SavedModel for TensorFlow Serving."""
