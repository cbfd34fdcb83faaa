"""Semi-supervised multimodal emotion recognition on video, distributed with Ray."""
