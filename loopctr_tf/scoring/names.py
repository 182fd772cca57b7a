"""Names in a signature that the export writes, and clients and servers read. Free of TensorFlow."""

SERVING_DEFAULT = "serving_default"
CLASSIFY = "classify"
REGRESS = "regress"
PROBABILITY = "probability"
STATE_VERSION = "state_version"

# beginnings of signature names, followed by "_" and the head where a model has several
ENCODE_USER = "encode_user"
RANK_CACHED = "rank_cached"
# signatures that score each candidate independently of the request's other candidates
INDEPENDENT = "rank"
