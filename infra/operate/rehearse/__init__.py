"""`spot rehearse RUN.yaml`: the user's own training, cut at many moments and resumed, beside the same undisturbed."""
