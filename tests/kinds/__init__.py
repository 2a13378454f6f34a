"""The kinds of training scripts: each is cut at three moments, resumed twice, and compared with itself undisturbed."""
